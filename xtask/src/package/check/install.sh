# Installs /tmp/tcptrace.deb, runs what it has, and removes it without a trace.
export LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive

# Without the folders in which dpkg and its triggers keep books.
files() {
    find / -xdev \( -path /var/lib/dpkg -o -path /var/log -o -path /var/cache -o -path /tmp \) -prune -o -print | sort
}

fail() {
    echo "$*" >&2
    exit 1
}

files >/tmp/before
# Some systems install no documentation.
dpkg --path-include='/usr/share/*' --install /tmp/tcptrace.deb
dpkg --verify tcptrace
tcptrace --version
tcptrace check
tcptrace snapshot >/tmp/snapshot
grep LISTEN /tmp/snapshot || echo 'no socket listens here'
# Status 3: events were lost, which is reported.
tcptrace watch --duration 1s >/tmp/watched || [ $? -eq 3 ]
grep '^TIME ' /tmp/watched
for page in tcptrace tcptrace-watch tcptrace-record; do
    man "$page" >/tmp/page
    grep -q "^NAME" /tmp/page || fail "man does not show $page"
done
bash -n /usr/share/bash-completion/completions/tcptrace
systemd-analyze verify tcptrace-record.service
# 1.0 is safest and 10.0 least safe; systemd-analyze compares ten times that.
systemd-analyze security --offline=true --threshold=50 tcptrace-record.service >/tmp/security
tail -n 1 /tmp/security
mkdir -p /var/lib/tcptrace
touch /var/lib/tcptrace/tcptrace.tct
dpkg --remove tcptrace
[ -e /var/lib/tcptrace/tcptrace.tct ] || fail 'removing the package removes traces'
dpkg --purge tcptrace
files >/tmp/after
diff /tmp/before /tmp/after || fail 'purging the package leaves files'
echo 'installed, run and purged'
