# shellcheck shell=bash
# Machines that share this kernel: each has its own network, processes, mounts and engine. For hosts with IPVS in the kernel,
# such as hosted runners.
#
# Needs root, an engine and Compose (a running engine is not touched), and Debian's packages binutils, curl, dnsmasq-base, haproxy,
# iproute2, kmod and nodejs. Sourced by `run`, which sets WORK, NETNS and NET.

machine_build() {
  local module
  for module in overlay br_netfilter ip_vs ip_vs_rr xt_ipvs vxlan veth bridge; do modprobe "$module" || true; done
}

# The first process of the machine: its mounts and children end with it.
machine_init() {
  local n=$1
  hostname "m$n"
  ip link set lo up
  sysctl -qw net.ipv4.ip_forward=1
  mount -t tmpfs tmpfs /run
  mkdir -p "$WORK/engine$n" /run/engine
  echo "nameserver $NET.1" >/run/resolv.conf
  mount --bind /run/resolv.conf /etc/resolv.conf
  # Neither systemd nor another engine is visible here, so this engine starts its own containerd, with its own groups.
  exec dockerd --host unix:///run/docker.sock --data-root "$WORK/engine$n" --exec-root /run/engine --pidfile /run/engine.pid \
    --cgroup-parent "/engines-m$n"
}

machine_start() {
  local n=$1 attempt
  machine_kill "$n"
  rm -rf "$WORK/engine$n"
  ip netns add "$NETNS-m$n"
  ip link add "m$n" netns "$NETNS" type veth peer name eth0 netns "$NETNS-m$n"
  ip -n "$NETNS" link set "m$n" master br0 up
  ip -n "$NETNS-m$n" addr add "$NET.1$n/24" dev eth0
  ip -n "$NETNS-m$n" link set eth0 up
  ip -n "$NETNS-m$n" route add default via "$NET.1"
  export WORK NET
  # Not `ip netns exec`, which would mount another /sys.
  setsid nsenter "--net=/run/netns/$NETNS-m$n" unshare --mount --uts --ipc --pid --fork --kill-child --mount-proc \
    bash -c "$(declare -f machine_init); machine_init $n" >"$WORK/m$n.console" 2>&1 </dev/null &
  echo $! >"$WORK/m$n.pid"
  disown
  for attempt in $(seq 60); do
    on "$n" docker info >/dev/null 2>&1 && return
    sleep 1
  done
  echo "machine $n did not start after $attempt s: $WORK/m$n.console" >&2
  return 1
}

# on N COMMAND...: runs a command in machine N.
on() {
  local n=$1 first
  shift
  # The child of `unshare` is the machine's first process.
  first=$(pgrep -P "$(cat "$WORK/m$n.pid")") || return 1
  nsenter --target "$first" --mount --uts --ipc --net --pid env -u DOCKER_HOST "$@"
}

machine_kill() {
  local pid
  if pid=$(cat "$WORK/m$1.pid" 2>/dev/null); then
    # All other processes end with the first one.
    kill -KILL -- "-$pid" 2>/dev/null || true
    rm -f "$WORK/m$1.pid"
  fi
  ip netns delete "$NETNS-m$1" 2>/dev/null || true
  ip -n "$NETNS" link delete "m$1" 2>/dev/null || true
}
