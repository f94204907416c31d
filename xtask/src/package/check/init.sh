# init.sh SYSTEM PLACE PACKAGE SCRIPT: becomes systemd, which runs the script and ends with its status.
system=$1 place=$2 package=$3 script=$4
mount -t tmpfs tmpfs "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay -o "lowerdir=$system,upperdir=$place/upper,workdir=$place/work" overlay "$place/root"
cd "$place/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tracefs tracefs sys/kernel/tracing
if [ -e /sys/fs/cgroup/cgroup.procs ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
else
    mount -t tmpfs tmpfs sys/fs/cgroup
    mkdir sys/fs/cgroup/systemd sys/fs/cgroup/unified
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
    mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
fi
# Services get a /dev of their own, for which systemd copies these.
mount -t tmpfs tmpfs dev
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    number=${node#*:}
    mknod -m 666 "dev/${node%%:*}" c "${number%:*}" "${number#*:}"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs dev/shm
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
ip link set lo up
cp "$package" tmp/tcptrace.deb
chroot . dpkg --install /tmp/tcptrace.deb
touch said
mount --bind "$place.said" said
printf '%s\n' "$script" >check.sh
cat >etc/systemd/system/check.service <<'END'
[Unit]
SuccessAction=exit
FailureAction=exit
FailureActionExitStatus=1

[Service]
Type=oneshot
TimeoutStartSec=300
ExecStart=/bin/sh -eu /check.sh
StandardOutput=append:/said
StandardError=append:/said
END
mkdir -p old
pivot_root . old
cd /
umount -l old
exec env -i container=tcptrace PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=check.service
