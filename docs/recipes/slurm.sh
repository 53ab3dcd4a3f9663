#!/bin/bash
# A sweep on Slurm: `sbatch slurm.sh table2.yaml`. Checked for its form only (bash -n).
# The folder in which it is submitted has to be shared by all nodes; the same environment is activated on each.
#SBATCH --job-name=amb
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-task=4
#SBATCH --mem=128G
#SBATCH --time=24:00:00
#SBATCH --signal=B:INT@120   # two minutes before the end: stop, so that the next job goes on from there

set -euo pipefail
file=${1:?usage: sbatch slurm.sh FILE.yaml}
export RAY_USAGE_STATS_ENABLED=0 RAY_ENABLE_UV_RUN_RUNTIME_ENV=0
# One token for all nodes, for this job alone: without it nobody can reach the cluster.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$head:$((20000 + SLURM_JOB_ID % 20000)) # jobs that share a node do not share a port

start() { # start NODE OPTION...: one part of the cluster, which lasts as long as this job
    srun --nodes=1 --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --nodelist="$1" --overlap ray start "${@:2}" --block \
        --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "${SLURM_GPUS_PER_TASK:-0}" --disable-usage-stats &
}

start "$head" --head --node-ip-address "$head" --port "${address#*:}" --include-dashboard false
sleep 30
for node in "${nodes[@]:1}"; do start "$node" --address "$address"; done
sleep 30

results=$SLURM_SUBMIT_DIR/amb-results
srun --nodes=1 --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --nodelist="$head" --overlap \
    amb sweep "$file" --executor ray --address "$address" --device cuda --output-dir "$results" &
sweep=$!
trap 'amb stop --now --output-dir "$results"' INT # srun keeps the first signal to itself
wait "$sweep" && code=0 || code=$?
wait "$sweep" 2>/dev/null || true # a signal ends the first wait; the sweep still writes what it has
exit "$code"
