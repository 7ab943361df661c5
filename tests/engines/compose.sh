# shellcheck shell=bash
# deploy/compose.yaml on one machine, without Prometheus and Grafana, which don't affect clients.

compose() {
  on 1 env "TRUNKLINE_IMAGE=trunkline:${PROXY_TAG:-old}" "TRUNKLINE_STATUS_IMAGE=trunkline-counters:${APP_TAG:-old}" \
    docker compose -f /root/deploy/compose.yaml "$@"
}

containers() { compose ps --quiet "$1"; }

is_healthy() { [ "$(on 1 docker inspect --format '{{.State.Health.Status}}' "$1")" = healthy ]; }

# As described in deploy/compose/README.md.
one_after_the_other() {
  local container
  for container in $(containers "$1"); do
    on 1 docker restart "$container"
    within 60 "$container is healthy" is_healthy "$container"
  done
}

# replace SERVICE: a new image, new containers before old ones.
replace() {
  local old container
  old=$(containers "$1")
  compose up --detach --no-build --no-deps --no-recreate --scale "$1=4" --wait "$1"
  for container in $old; do
    on 1 docker stop "$container"
    on 1 docker rm "$container"
  done
}

new_app() { APP_TAG=new replace app; }
new_proxy() { APP_TAG=new PROXY_TAG=new replace proxy; }

# Both at the same time, as Compose does it: for some seconds no proxy has an app server.
all_apps() {
  compose up --detach --no-build --no-deps --force-recreate app
  sleep 15
}

# Like a crash: the engine restarts the container, unlike after `docker kill`.
crash() {
  local container
  container=$(containers "$1" | head -1)
  on 1 sh -c "kill -KILL \$(docker inspect --format '{{.State.Pid}}' $container)"
  within 60 "$container is healthy" is_healthy "$container"
}

compose_series() {
  tar -C "$REPOSITORY" -c deploy/compose.yaml deploy/compose deploy/image deploy/prometheus deploy/grafana | on 1 tar -C /root -x
  # Waits until the proxies are healthy, because HAProxy depends on them.
  compose up --detach --no-build app proxy haproxy
  within 60 "HAProxy has found the proxies" is_open "$NET.11"
  step planned compose-restart-app one_after_the_other app
  step planned compose-restart-proxy one_after_the_other proxy
  step planned compose-new-app new_app
  step planned compose-new-proxy new_proxy
  APP_TAG=new PROXY_TAG=new step planned compose-all-apps all_apps
  TAIL=30 step crash compose-kill-app crash app
  TAIL=30 step crash compose-kill-proxy crash proxy
}
