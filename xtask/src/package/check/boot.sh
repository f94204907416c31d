# boot.sh SYSTEM PLACE PACKAGE SCRIPT INIT: INIT starts systemd in a copy of a system, in namespaces and control groups of its
# own. What the script says comes through a file beside the copy.
system=$1 place=$2 package=$3 script=$4 init=$5
groups=
for group in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
    [ ! -e "$group/cgroup.procs" ] || groups="$groups $group/tcptrace-package"
done
: >"$place.said"
status=0
(
    for group in $groups; do
        mkdir -p "$group"
        echo 0 >"$group/cgroup.procs"
    done
    exec unshare --mount --propagation private --pid --fork --kill-child --uts --ipc --net --cgroup \
        sh -euc "$init" init "$system" "$place" "$package" "$script"
) || status=$?
for group in $groups; do
    find "$group" -depth -type d -exec rmdir {} +
done
cat "$place.said"
exit $status
