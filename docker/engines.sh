# What docker, podman and buildah do each in their own way; sourced by scripts/container, whose variables it reads.

choose_engine() {
    local name
    if [[ -n $engine ]]; then
        engine_works "$engine" || fail "--engine $engine: does not work here" "$engine info tells why"
    else
        for name in docker podman buildah; do
            engine_works "$name" && engine=$name && break
        done
        [[ -n $engine ]] || fail "neither docker nor podman nor buildah works here" \
            "install one, on Debian and Ubuntu: apt-get install buildah"
    fi
    if [[ $variant == cuda && $engine == buildah && $command == run ]]; then
        fail "buildah does not hand GPUs on" "run it with docker or podman"
    fi
    [[ $engine == buildah ]] && choose_buildah
    printf '[container] %s%s\n' "${engine_command[*]:-$engine}" "${isolation:+, isolation $isolation}" >&2
}

engine_works() {
    case $1 in
        docker) command -v docker >/dev/null && timeout 20 docker info >/dev/null 2>&1 ;;
        podman) command -v podman >/dev/null && podman_runs ;;
        buildah) command -v buildah >/dev/null ;;
        *) fail "--engine $1: it is docker, podman or buildah" ;;
    esac
}

# Whether a container can be started at all: a sandbox may forbid what the runtime asks for, and info does not tell.
# The container is an empty folder that sees this machine's programs.
host=(--volume /usr:/usr:ro --volume /lib:/lib:ro --volume /lib64:/lib64:ro)

podman_runs() {
    local empty status=0
    empty=$(mktemp -d)
    timeout 60 podman run --rm --network none "${host[@]}" --rootfs "$empty" /usr/bin/true >/dev/null 2>&1 || status=1
    rm -rf -- "$empty"
    return "$status"
}

# Where overlay mounts are forbidden buildah copies, and where no container can be started it changes its root instead.
choose_buildah() {
    local probe
    engine_command=(buildah)
    buildah info >/dev/null 2>&1 || engine_command+=(--storage-driver vfs)
    isolation=oci
    probe=$("${engine_command[@]}" from scratch) || fail "buildah: no container can be made" "buildah info tells more"
    timeout 60 "${engine_command[@]}" run --isolation oci "${host[@]}" "$probe" -- /usr/bin/true >/dev/null 2>&1 ||
        isolation=chroot
    "${engine_command[@]}" rm "$probe" >/dev/null
}

engine_build() { # arguments of docker build
    case $engine in
        buildah) "${engine_command[@]}" build --isolation "$isolation" --layers=false "$@" ;;
        *) DOCKER_BUILDKIT=1 "$engine" build "$@" ;;
    esac
}

require_image() {
    local found=(image inspect "$image")
    [[ $engine == buildah ]] && found=(inspect --type image "$image")
    "${engine_command[@]:-$engine}" "${found[@]}" >/dev/null 2>&1 ||
        fail "$image: $engine has no such image" "scripts/container build --variant $variant"
}

image_digest() {
    case $engine in
        buildah) "${engine_command[@]}" inspect --type image --format '{{.FromImageDigest}}' "$image" ;;
        *) "$engine" image inspect --format '{{.Id}}' "$image" ;;
    esac
}

# COMMAND... in a new container that is thrown away, with ${mounts[@]} and ${variables[@]}.
engine_run() {
    local arguments=() entry user
    user=$(id -u):$(id -g)
    ((EUID)) || user=1000:1000
    for entry in ${mounts[@]+"${mounts[@]}"}; do arguments+=(--volume "$entry"); done
    for entry in ${variables[@]+"${variables[@]}"}; do arguments+=(--env "$entry"); done
    [[ -n $network ]] && arguments+=(--network "$network")
    case $engine in
        buildah)
            # Its containers have no read-only root; the user, who is not root, can write to the mounted folders only.
            container=$("${engine_command[@]}" from --pull-never "$image")
            "${engine_command[@]}" run --isolation "$isolation" --user "$user" "${arguments[@]}" "$container" -- "$@"
            ;;
        *)
            [[ $engine == podman && $EUID != 0 ]] && arguments+=(--userns keep-id)
            [[ $variant == cuda && $engine == docker ]] && arguments+=(--gpus all)
            [[ $variant == cuda && $engine == podman ]] && arguments+=(--device nvidia.com/gpu=all)
            # Data-loading processes hand their batches over in shared memory; a run that is stopped saves first.
            [[ $engine == docker ]] && arguments+=(--init)
            "$engine" run --rm --read-only --tmpfs /tmp --shm-size 2g --stop-timeout 120 --cap-drop ALL \
                --security-opt no-new-privileges --user "$user" "${arguments[@]}" --entrypoint "$1" "$image" "${@:2}"
            ;;
    esac
}

engine_clean() {
    [[ -z ${container:-} ]] || "${engine_command[@]}" rm "$container" >/dev/null
    container=''
}
