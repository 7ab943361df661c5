# shellcheck shell=bash
# Images from existing programs: the last stages of deploy/image/Dockerfile, without a registry.

# Lines of a stage after its FROM and COPY: the product's own user, health check and command.
stage() {
  awk -v want="$1" '/^FROM /{on = ($NF == want); next} on && !/^COPY --from/' "$REPOSITORY/deploy/image/Dockerfile"
}

# lay_out FOLDER PROGRAM...: creates root.tar in FOLDER like the Dockerfile, without debug information.
lay_out() {
  local folder=$1 program
  shift
  rm -rf "$folder"
  mkdir -p "$folder/programs"
  for program; do strip --strip-debug -o "$folder/programs/$(basename "$program")" "$program"; done
  sh "$REPOSITORY/deploy/image/root.sh" "$folder/root" "$folder"/programs/*
  tar -C "$folder/root" --numeric-owner -cf "$folder/root.tar" .
  rm -rf "$folder/root" "$folder/programs"
}

# context NAME FROM-STAGE PROGRAMS MORE-LINES...: creates a context folder for `docker build`.
context() {
  local folder=$WORK/images/$1 of=$2 programs=$3
  shift 3
  # shellcheck disable=SC2086 # paths without spaces: one word for each program
  lay_out "$folder" $programs
  { printf 'FROM scratch\nADD root.tar /\n'; [ -z "$of" ] || stage "$of"; printf '%s\n' "$@"; } >"$folder/Dockerfile"
}

# relabel TAG: the images of tag `old` with another tag.
relabel() {
  local name
  for name in trunkline trunkline-status trunkline-counters; do
    mkdir -p "$WORK/images/$name.$1"
    printf 'FROM %s:old\nLABEL engines.tag=%s\n' "$name" "$1" >"$WORK/images/$name.$1/Dockerfile"
  done
}

# make_contexts FOLDER TAG: contexts for the programs of one version.
make_contexts() {
  local programs=$1 tag=$2
  context "trunkline.$tag" trunkline "$programs/trunkline" "LABEL engines.tag=$tag"
  context "trunkline-status.$tag" status "$programs/examples/status $programs/trunkline" "LABEL engines.tag=$tag"
  # The app of the counting clients.
  context "trunkline-counters.$tag" status "$programs/examples/bench $programs/trunkline" "LABEL engines.tag=$tag" \
    'ENTRYPOINT ["/usr/bin/bench"]' 'CMD ["--listen", ":5000", "--stateful"]'
}

# A substitute with the name in compose.yaml: HAProxy of this machine.
make_haproxy_context() {
  local image
  image=$(awk '$1 == "image:" && $2 ~ /^haproxy:/ { print $2 }' "$REPOSITORY/deploy/compose.yaml")
  context "${image//:/.}" "" /usr/sbin/haproxy 'STOPSIGNAL SIGUSR1' \
    'CMD ["/usr/bin/haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]'
}

# build_images N: in the engine of machine N. A folder NAME.TAG is the image NAME:TAG.
build_images() {
  local folder name
  for folder in "$WORK"/images/*.old "$WORK"/images/haproxy.* "$WORK"/images/*.new; do
    name=$(basename "$folder")
    # The old builder, because distributions' engines may lack the new one. It prints a warning at each build.
    tar -C "$folder" -c . | on "$1" env DOCKER_BUILDKIT=0 docker build -q -t "${name%%.*}:${name#*.}" - >/dev/null 2>"$WORK/build.log" ||
      { cat "$WORK/build.log" >&2; return 1; }
  done
  echo "machine $1 has all images after $SECONDS s"
}
