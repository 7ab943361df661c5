# shellcheck shell=bash
# The network of the machines: a bridge in a separate namespace, which also has the clients.

start_network() {
  stop_network
  ip netns add "$NETNS"
  ip -n "$NETNS" link set lo up
  ip -n "$NETNS" link add br0 type bridge
  ip -n "$NETNS" addr add "$NET.1/24" dev br0
  ip -n "$NETNS" link set br0 up
  ip netns exec "$NETNS" sysctl -qw net.bridge.bridge-nf-call-iptables=0 2>/dev/null || true
  # Engines query unknown names; an immediate answer saves seconds.
  setsid ip netns exec "$NETNS" dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --bind-interfaces \
    "--listen-address=$NET.1" '--address=/#/' --user=root --pid-file= >"$WORK/names.log" 2>&1 </dev/null &
  echo $! >"$WORK/names.pid"
  disown
}

stop_network() {
  local pid
  if pid=$(cat "$WORK/names.pid" 2>/dev/null); then
    kill "$pid" 2>/dev/null || true
    rm -f "$WORK/names.pid"
  fi
  ip netns delete "$NETNS" 2>/dev/null || true
}

# Whether a client gets an answer to its first request.
is_open() {
  ip netns exec "$NETNS" curl -fs --max-time 5 --output /dev/null -X POST "http://$1/bench/negotiate?negotiateVersion=1"
}

# unplug N, plug N: takes a machine off the network, and puts it back.
unplug() { ip -n "$NETNS" link set "m$1" down; }
plug() { ip -n "$NETNS" link set "m$1" up; }
