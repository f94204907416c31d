# Runs the flight recorder as a service: it must see everything, write when asked, and keep what was there.
export LC_ALL=C.UTF-8
traces=/var/lib/tcptrace

said() {
    journalctl --no-pager --output=cat --unit=tcptrace-record
}

fail() {
    echo "$*"
    said
    exit 1
}

wait_for() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || fail "this did not come true: $*"
        sleep 0.1
    done
}

ready() {
    [ "$(said | grep -c '^tcptrace: ready$')" -eq "$1" ]
}

if systemctl is-enabled --quiet tcptrace-record; then
    fail 'installing the package enables the service'
fi
systemctl start tcptrace-record
wait_for ready 1
systemctl reload tcptrace-record
wait_for tcptrace report $traces/tcptrace.tct
systemctl stop tcptrace-record
tcptrace report $traces/tcptrace.0002.tct >/dev/null
systemctl start tcptrace-record
wait_for ready 2
systemctl stop tcptrace-record
tcptrace report $traces/tcptrace.tct.old >/dev/null
# A sandbox can hide what tcptrace reads. The processes outside are hidden by this check, and not by the unit.
if said | grep -e 'not seen here' -e warning -e 'cannot' | grep -v 'outside this pid namespace'; then
    fail 'the service does not see everything'
fi
systemctl show --property=ActiveState,Result tcptrace-record | grep -q '^Result=success$' || fail 'the service failed'
said
echo 'the service ran, wrote traces, and ended'
