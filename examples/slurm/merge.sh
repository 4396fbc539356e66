#!/bin/bash
# The outputs of an array of shards put together, as one run would have written them. Globals, and what is behind them, run here, over all rows.
# usage: sbatch --dependency=afterok:ARRAY [OPTION...] merge.sh RUN_DIRECTORY
#SBATCH --job-name=stepmill-merge
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --time=01:00:00
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

run=${1:?the run directory} most=100 # as in requeue.sh

if [ -z "${SLURM_JOB_END_TIME-}" ]; then
    end=$(date -d "$(squeue -h -j "$SLURM_JOB_ID" -o %e)" +%s 2>/dev/null) && export SLURM_JOB_END_TIME="$end" # NONE is no date: no limit
fi

stepmill merge "$run" --threads "$SLURM_CPUS_PER_TASK"
code=$?
if [ $code -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt $most ]; then
    scontrol requeue "$SLURM_JOB_ID" # ends this shell
fi
exit $code
