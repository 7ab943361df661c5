# shellcheck shell=bash
# A step: a change of the deployment while clients count.

traffic=
number=0

stop_traffic() {
  [ -n "$traffic" ] || return 0
  kill -INT "$traffic" 2>/dev/null || true
  wait "$traffic" || true
  traffic=
}

# step KIND NAME COMMAND...: KIND is `planned` or `crash`. Clients run before the command, and for TAIL seconds after it.
step() {
  local kind=$1 name=$2 file log begun=$SECONDS
  shift 2
  number=$((number + 1))
  file=$(printf '%s/steps/%02d-%s-%s' "$WORK" "$number" "$kind" "$name")
  log=$file.log
  : >"$log"
  NODE_MODULES=$NODE_MODULES ip netns exec "$NETNS" node "$HERE/traffic.mjs" "http://$NET.11/bench" "$file.json" >"$log" 2>&1 </dev/null &
  traffic=$!
  until grep -q 'connected:' "$log"; do
    kill -0 "$traffic" 2>/dev/null || { cat "$log" >&2; echo "$name: the clients have ended" >&2; return 1; }
    [ $((SECONDS - begun)) -lt 120 ] || { echo "$name: the clients can't connect" >&2; return 1; }
    sleep 0.5
  done
  sleep 5
  "$@" >>"$log" 2>&1 || { tail -n 20 "$log" >&2; echo "$name: $* has failed" >&2; return 1; }
  sleep "${TAIL:-10}"
  stop_traffic
  [ -s "$file.json" ] || fault "$name: the clients have counted nothing: $log"
  echo "$name: $((SECONDS - begun)) s"
}

# fault WORDS: records a violation that no client counts.
fault() {
  echo "fault: $*" | tee -a "$WORK/steps/faults" >&2
}

# within SECONDS WHAT COMMAND...: repeats the command until it succeeds.
within() {
  local limit=$1 what=$2 begun=$SECONDS
  shift 2
  until "$@"; do
    [ $((SECONDS - begun)) -lt "$limit" ] || { echo "not within $limit s: $what" >&2; return 1; }
    sleep 2
  done
}
