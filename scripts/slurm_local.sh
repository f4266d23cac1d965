#!/usr/bin/env bash
# A SLURM cluster of two nodes on this machine, for tests: accounting included, loopback addresses
# only, no systemd. Everything it writes is in FOLDER (default: .slurm). Debian 12, as root:
#   bash scripts/slurm_local.sh --install           apt-get install what it needs, and nothing else
#   eval "$(bash scripts/slurm_local.sh start)"     waits for both nodes; its commands go first on PATH
#   bash scripts/slurm_local.sh status | stop [FOLDER]
# A node has NODE_CPUS (default 2), NODE_MEMORY MB (default 4000) and NODE_GPUS (default 0). SLURM only
# counts them: the machine need not have as many.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'slurm_local: %s\n' "$*" >&2; }
# Debian's packages without mariadb-server, which would start a service of its own.
packages=(slurmctld slurmd slurm-client slurmdbd munge mariadb-server-core mariadb-client-core)
commands=(slurmctld slurmd sbatch slurmdbd munged mariadbd my_print_defaults)
daemons=(munged mariadbd slurmdbd slurmctld node1 node2)
action=${1:-}
folder=$(realpath -m "${2:-.slurm}")
export PATH=$PATH:/usr/sbin SLURM_CONF=$folder/slurm.conf
export MYSQL_UNIX_PORT=$folder/mariadb.socket # read by slurmdbd's client library

# Our daemon NAME: its pid file names a process that has this cluster's SLURM_CONF.
pid_of() {
  local pid
  pid=$(cat "$folder/$1.pid" 2>/dev/null) || return 1
  tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | grep -xF "SLURM_CONF=$SLURM_CONF" >/dev/null && echo "$pid"
}
launch() {
  local name=$1
  shift
  setsid "$@" >>"$folder/log/$name.out" 2>&1 </dev/null &
  echo $! >"$folder/$name.pid"
}
# wait_for SECONDS WHAT COMMAND...
wait_for() {
  local left=$1 what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $((left--)) -gt 0 ] || { say "$what: not ready. Logs: $folder/log"; exit 1; }
    sleep 1
  done
}
nodes_up() { [ "$(sinfo -h -N -o %T | grep -cE '^(idle|mixed|allocated)$')" = 2 ]; }
running() {
  local name
  for name in "${daemons[@]}"; do pid_of "$name" >/dev/null || return 1; done
}

write_config() {
  local ports name
  # Ports that are free now.
  read -r -a ports < <(python3 -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
print(*[s.getsockname()[1] for s in sockets])')
  local gres="" types=""
  if [ "${NODE_GPUS:-0}" -gt 0 ]; then
    gres=" Gres=gpu:$NODE_GPUS" types="GresTypes=gpu"
    # SLURM wants a device for each.
    for name in $(seq "$NODE_GPUS"); do rm -f "$folder/gpu$name" && mknod "$folder/gpu$name" c 1 3; done
    printf 'Name=gpu File=%s\n' "$folder/gpu[1-$NODE_GPUS]" >"$folder/gres.conf"
  else
    rm -f "$folder/gres.conf"
  fi
  cat >"$folder/slurm.conf" <<CONF
ClusterName=local
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=${ports[0]}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/slurmctld.own.pid
SlurmdPidFile=$folder/%n.own.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/%n.log
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=60
KillWait=5
SchedulerParameters=sched_interval=5
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/slurmdbd
AccountingStoreFlags=job_comment
AccountingStorageHost=localhost
AccountingStoragePass=$folder/munge.socket
AccountingStoragePort=${ports[1]}
$types
NodeName=node1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=${ports[2]} CPUs=${NODE_CPUS:-2} RealMemory=${NODE_MEMORY:-4000}$gres
NodeName=node2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=${ports[3]} CPUs=${NODE_CPUS:-2} RealMemory=${NODE_MEMORY:-4000}$gres
PartitionName=main Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
CONF
  cat >"$folder/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
CommunicationParameters=NoInAddrAny
DbdPort=${ports[1]}
SlurmUser=root
LogFile=$folder/log/slurmdbd.log
PidFile=$folder/slurmdbd.own.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
CONF
  chmod 600 "$folder/slurmdbd.conf"
  # Clients that know their cluster: snakemake-executor-plugin-slurm-jobstep 0.6.1 calls srun without
  # SLURM_CONF.
  mkdir -p "$folder/bin"
  for name in sacct sacctmgr salloc sbatch scancel scontrol sinfo squeue srun; do
    printf '#!/bin/sh\nSLURM_CONF=%q exec %q "$@"\n' "$SLURM_CONF" "/usr/bin/$name" >"$folder/bin/$name"
    chmod 755 "$folder/bin/$name"
  done
}

start() {
  local missing=() name
  for name in "${commands[@]}"; do command -v "$name" >/dev/null || missing+=("$name"); done
  if [ ${#missing[@]} -gt 0 ]; then
    say "missing: ${missing[*]}. On Debian, as root: apt-get install --no-install-recommends ${packages[*]} (or: bash scripts/slurm_local.sh --install)"
    exit 3
  fi
  [ "$(id -u)" -eq 0 ] || { say "needs root"; exit 3; }
  [ ${#folder} -le 80 ] || { say "$folder: longer than 80 characters, too long for a socket"; exit 2; }
  if ! running; then
    stop
    trap stop EXIT # until everything runs
    mkdir -p "$folder"/{log,state,spool/node1,spool/node2}
    write_config
    [ -f "$folder/munge.key" ] || (umask 077 && head -c 128 /dev/urandom >"$folder/munge.key")
    # --force: FOLDER may be private to root.
    launch munged munged --foreground --force --key-file "$folder/munge.key" --seed-file "$folder/munge.seed" \
      --socket "$folder/munge.socket" --pid-file "$folder/munged.own.pid" --log-file "$folder/log/munged.log"
    if [ ! -d "$folder/mariadb/mysql" ]; then
      mariadb-install-db --no-defaults --user=root --datadir="$folder/mariadb" --skip-test-db \
        --auth-root-authentication-method=socket >"$folder/log/mariadb-install.out" 2>&1 ||
        { say "mariadb-install-db failed, see $folder/log/mariadb-install.out"; rm -rf "$folder/mariadb"; exit 1; }
    fi
    launch mariadbd mariadbd --no-defaults --user=root --datadir="$folder/mariadb" --skip-networking \
      --socket="$MYSQL_UNIX_PORT" --pid-file="$folder/mariadbd.own.pid" --innodb-lock-wait-timeout=900
    wait_for 60 munged test -S "$folder/munge.socket"
    wait_for 60 mariadbd test -S "$MYSQL_UNIX_PORT"
    launch slurmdbd slurmdbd -D
    wait_for 60 slurmdbd sacctmgr -n list cluster
    launch slurmctld slurmctld -D -f "$SLURM_CONF"
    wait_for 60 slurmctld scontrol ping
    # A node that was configured otherwise before is drained.
    scontrol update NodeName=node1,node2 State=RESUME 2>/dev/null || true
    for name in node1 node2; do launch "$name" slurmd -D -N "$name" -f "$SLURM_CONF"; done
  fi
  wait_for 60 "both nodes" nodes_up
  trap - EXIT
  say "two nodes. Commands of this cluster: export PATH=$folder/bin:\$PATH"
  printf 'export PATH=%q:$PATH\n' "$folder/bin"
}

stop() {
  local name pid position
  if pid_of slurmctld >/dev/null; then
    # slurmd does not end its jobs when it ends.
    squeue -h -o %A | xargs -r scancel || true
    for _ in $(seq 30); do [ -n "$(squeue -h 2>/dev/null)" ] || break; sleep 1; done
  fi
  for ((position = ${#daemons[@]} - 1; position >= 0; position--)); do
    name=${daemons[position]}
    if pid=$(pid_of "$name"); then
      kill "$pid"
      for _ in $(seq 60); do pid_of "$name" >/dev/null || break; sleep 0.5; done
      if pid_of "$name" >/dev/null; then say "$name: killed"; kill -9 "$pid"; fi
    fi
    rm -f "$folder/$name.pid"
  done
}

status() {
  local name
  for name in "${daemons[@]}"; do
    printf '%-10s %s\n' "$name" "$(pid_of "$name" || echo 'not running')"
  done
  running && sinfo -N -o '%N %T %C %m' && squeue
}

case $action in
  start) start ;;
  stop) stop ;;
  status) status ;;
  --install)
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >&2
    apt-get install -q -y --no-install-recommends "${packages[@]}" >&2
    ;;
  *)
    say "usage: bash scripts/slurm_local.sh start|stop|status [FOLDER], or --install"
    exit 2
    ;;
esac
