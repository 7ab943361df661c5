# shellcheck shell=bash
# deploy/swarm on two machines: a manager and a worker, joined by the ingress mesh.

STACK=trunkline

# deploy APP-IMAGE TAG: the shipped stack, with an admin token as described in its README.
deploy() {
  on 1 env "TRUNKLINE_IMAGE=trunkline:$2" "TRUNKLINE_STATUS_IMAGE=$1:$2" docker stack deploy --detach=true --resolve-image never \
    -c /root/deploy/swarm/stack.yml -c /root/deploy/swarm/admin.yml "$STACK"
}

# Waits until services are updated, have all their tasks, and stopped tasks have ended.
is_settled() {
  local states
  states=$(on 1 docker service inspect "${STACK}_app" "${STACK}_proxy" --format '{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}') || return 1
  case $states in *updating* | *started* | *rollback*) return 1 ;; esac
  # A service has all its tasks: "2/2".
  on 1 docker service ls --format '{{.Replicas}}' | awk -F/ '$1 != $2 { exit 1 }' || return 1
  ! on 1 docker stack ps "$STACK" --filter desired-state=shutdown --format '{{.CurrentState}}' | grep -q Running
}

settle() {
  sleep 3
  within 400 "services are settled" is_settled
}

tasks() { on 1 docker service ps "${STACK}_$1" --filter desired-state=running --quiet | sort; }

# The machine and the container of a healthy task: kill_task SERVICE.
kill_task() {
  local n container
  for n in "${MACHINES[@]}"; do
    container=$(on "$n" docker ps --quiet --filter "name=${STACK}_$1" --filter health=healthy | head -1)
    if [ -n "$container" ]; then
      on "$n" docker kill "$container"
      return
    fi
  done
  return 1
}

force() { on 1 docker service update --quiet --detach=true --force "${STACK}_$1"; settle; }
scale() { on 1 docker service scale --detach=true "${STACK}_$1=$2"; settle; sleep 8; }
scale_app() { scale app 3; scale app 1; scale app 2; }
scale_proxy() { scale proxy 4; scale proxy 2; }
roll_out() { deploy trunkline-counters new; settle; }
kill_app() { kill_task app; settle; }
kill_proxy() { kill_task proxy; settle; }
# Redistributes all tasks over both machines: after the loss of a machine, all tasks are on the other one.
spread() {
  on 1 docker service scale --detach=true "${STACK}_app=0" "${STACK}_proxy=0"
  settle
  on 1 docker service scale --detach=true "${STACK}_app=2" "${STACK}_proxy=2"
  settle
  within 60 "clients are served" is_open "$NET.11"
}

cut_off() { unplug 2; sleep 20; plug 2; }

swarm_series() {
  local before
  tar -C "$REPOSITORY" -c deploy/swarm | on 1 tar -C /root -x
  on 1 docker swarm init --advertise-addr "$NET.11" >/dev/null
  on 2 docker swarm join --token "$(on 1 docker swarm join-token -q worker)" "$NET.11:2377"
  # As in the README.
  on 1 sh -c 'docker run --rm trunkline:old token key | docker secret create trunkline-access-key - >/dev/null'
  on 1 sh -c 'docker run --rm trunkline:old token key | docker secret create trunkline-admin-token - >/dev/null'

  # The sample first, then another app with other hubs: a removed hub is no reason to replace a proxy.
  deploy trunkline-status old >/dev/null
  settle
  echo "the stack is up after $SECONDS s"
  deploy trunkline-counters old >/dev/null
  settle
  within 60 "clients are served" is_open "$NET.11"
  before=$(tasks proxy)

  step planned update-app force app
  step planned scale-app scale_app
  [ "$before" = "$(tasks proxy)" ] || fault "the engine has replaced proxies that nobody touched"
  step planned scale-proxy scale_proxy
  step planned update-proxy force proxy
  step planned roll-out roll_out
  TAIL=30 step crash kill-app kill_app
  TAIL=30 step crash kill-proxy kill_proxy
  spread
  TAIL=40 step crash cut-off-20-s cut_off
  spread
  TAIL=60 step crash kill-machine machine_kill 2
}
