# shellcheck shell=bash
# Machines of User Mode Linux with their own kernels, for hosts without IPVS in the kernel, or that may not raise limits.
#
# Needs root on Debian, with the packages binutils, curl, debootstrap, dnsmasq-base, e2fsprogs, haproxy, iproute2, kmod, nodejs and
# openssh-client. Sourced by `run`, which sets WORK, NETNS and NET.

UML_RELEASE=trixie
UML_MEMORY=${ENGINES_MEMORY:-1500M}

# A disk with Debian, its engine and the kernel's modules, shared by all machines: each writes to its own file.
machine_build() {
  local root=$WORK/$UML_RELEASE kernel
  [ -f "$WORK/base.img" ] && return
  if [ ! -d "$WORK/uml" ]; then
    (cd "$WORK" && apt-get download -q user-mode-linux && dpkg -x user-mode-linux_*.deb uml)
  fi
  kernel=$(ls "$WORK/uml/usr/lib/uml/modules")
  # The mirror of this machine.
  [ -d "$root" ] || {
    rm -rf "$root.part"
    debootstrap --variant=minbase "$UML_RELEASE" "$root.part" \
      "$(apt-get indextargets --format '$(REPO_URI)' 'Label: Debian' | head -1)"
    uml_install "$root.part"
    mv "$root.part" "$root"
  }
  mkdir -p "$root/usr/lib/modules"
  cp -a "$WORK/uml/usr/lib/uml/modules/$kernel" "$root/usr/lib/modules/"
  chroot "$root" depmod "$kernel"
  uml_configure "$root"
  truncate -s 12G "$WORK/base.part"
  mkfs.ext4 -q -F -E lazy_itable_init=1 -d "$root" "$WORK/base.part"
  mv "$WORK/base.part" "$WORK/base.img"
  rm -rf "$root"
}

uml_install() {
  printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
  chmod +x "$1/usr/sbin/policy-rc.d"
  cp /etc/resolv.conf "$1/etc/resolv.conf"
  chroot "$1" sh -c 'export DEBIAN_FRONTEND=noninteractive
    apt-get update -q && apt-get install -y -q --no-install-recommends systemd systemd-sysv dbus udev kmod iproute2 iptables \
      openssh-server ca-certificates docker.io docker-cli docker-compose'
  rm "$1/usr/sbin/policy-rc.d"
  # nft's compatibility layer fails in this kernel ("iptables failed, exit status 4"); the older tables work.
  local tables
  for tables in iptables ip6tables; do chroot "$1" update-alternatives --set $tables /usr/sbin/$tables-legacy; done
}

uml_configure() {
  local root=$1
  [ -f "$WORK/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$WORK/key"
  install -D -m 600 "$WORK/key.pub" "$root/root/.ssh/authorized_keys"
  chmod 700 "$root/root/.ssh"
  printf 'UseDNS no\nMaxSessions 100\n' >"$root/etc/ssh/sshd_config.d/engines.conf"
  echo '/dev/ubda / ext4 defaults 0 1' >"$root/etc/fstab"
  printf '%s\n' overlay br_netfilter ip_vs ip_vs_rr xt_ipvs vxlan veth bridge >"$root/etc/modules-load.d/engines.conf"
  # Without a name server that answers immediately, each unknown name costs seconds.
  echo "nameserver $NET.1" >"$root/etc/resolv.conf"
  echo '127.0.0.1 localhost' >"$root/etc/hosts"
  cat >"$root/usr/local/sbin/engines-net" <<'SCRIPT'
#!/bin/sh
for word in $(cat /proc/cmdline); do
  case $word in engines.ip=*) ip=${word#engines.ip=} ;; engines.gateway=*) gateway=${word#engines.gateway=} ;; esac
done
ip link set lo up
ip addr add "$ip/24" dev eth0
ip link set eth0 up
ip route add default via "$gateway"
SCRIPT
  chmod +x "$root/usr/local/sbin/engines-net"
  cat >"$root/etc/systemd/system/engines-net.service" <<'UNIT'
[Unit]
DefaultDependencies=no
After=systemd-udevd.service local-fs.target
Before=network.target docker.service ssh.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/engines-net
[Install]
WantedBy=multi-user.target
UNIT
  chroot "$root" systemctl -q enable engines-net ssh docker containerd
  chroot "$root" systemctl -q mask systemd-networkd getty.target apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer \
    fstrim.timer systemd-firstboot
}

machine_start() {
  local n=$1
  rm -f "$WORK/disk$n.img"
  ip netns exec "$NETNS" ip tuntap add "m$n" mode tap
  ip -n "$NETNS" link set "m$n" master br0 up
  # The machine's memory is a file there.
  TMPDIR=/dev/shm setsid ip netns exec "$NETNS" "$WORK/uml/usr/bin/linux.uml" "mem=$UML_MEMORY" \
    "ubd0=$WORK/disk$n.img,$WORK/base.img" root=/dev/ubda rw "eth0=tuntap,m$n,02:00:00:00:00:1$n" "systemd.hostname=m$n" \
    "engines.ip=$NET.1$n" "engines.gateway=$NET.1" con=null con0=fd:0,fd:1 quiet "umid=engines-$$-$n" apparmor=0 \
    >"$WORK/m$n.console" 2>&1 </dev/zero &
  echo $! >"$WORK/m$n.pid"
  disown
  local attempt
  for attempt in $(seq 90); do
    on "$n" systemctl is-active -q docker 2>/dev/null && return
    sleep 1
  done
  echo "machine $n did not start after $attempt s: $WORK/m$n.console" >&2
  return 1
}

# on N COMMAND...: runs a command in machine N.
on() {
  local n=$1
  shift
  ip netns exec "$NETNS" ssh -q -i "$WORK/key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=8 \
    -o ControlMaster=auto -o ControlPersist=60 -o "ControlPath=$WORK/ssh-%h" "root@$NET.1$n" "$(printf '%q ' "$@")"
}

machine_kill() {
  local pid
  pid=$(cat "$WORK/m$1.pid" 2>/dev/null) || return 0
  kill -KILL -- "-$pid" 2>/dev/null || true
  rm -f "$WORK/m$1.pid" "$WORK/ssh-$NET.1$1"
  ip -n "$NETNS" link delete "m$1" 2>/dev/null || true
}
