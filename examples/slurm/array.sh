#!/bin/bash
# One run as an array of jobs: each takes its part of the rows on a node of its own; merge.sh makes one output of them.
# usage: sbatch --array=1-N [OPTION...] array.sh PIPELINE.yaml RUN_DIRECTORY
#SBATCH --job-name=stepmill
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --array=1-4
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A-%a.log

pipeline=${1:?the pipeline file} run=${2:?the run directory} most=100 # as in requeue.sh

if [ -z "${SLURM_JOB_END_TIME-}" ]; then
    end=$(date -d "$(squeue -h -j "$SLURM_JOB_ID" -o %e)" +%s 2>/dev/null) && export SLURM_JOB_END_TIME="$end" # NONE is no date: no limit
fi

# Task 2 of 1-4 works in RUN_DIRECTORY/shard-2-of-4.
stepmill run "$pipeline" --run "$run" --shard slurm --placement external --threads "$SLURM_CPUS_PER_TASK"
code=$?
if [ $code -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt $most ]; then
    scontrol requeue "$SLURM_JOB_ID" # this task alone; ends this shell
fi
exit $code
