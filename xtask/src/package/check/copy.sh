# copy.sh SYSTEM PLACE PACKAGE SCRIPT, in a mount namespace of its own: what the script changes stays in memory, and goes
# with the namespace.
system=$1 place=$2 package=$3 script=$4
mount -t tmpfs tmpfs "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay -o "lowerdir=$system,upperdir=$place/upper,workdir=$place/work" overlay "$place/root"
cd "$place/root"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
cp "$package" tmp/tcptrace.deb
exec chroot . /bin/sh -euc "$script"
