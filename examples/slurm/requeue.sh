#!/bin/bash
# A run that takes longer than a job may: stopped in order ahead of the time limit, the job puts itself into the queue again and goes on.
# usage: sbatch [OPTION...] requeue.sh PIPELINE.yaml RUN_DIRECTORY
#SBATCH --job-name=stepmill
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

pipeline=${1:?the pipeline file} run=${2:?the run directory} most=100 # a job that never gets anywhere must end, too

# stepmill run reads SLURM_JOB_END_TIME; a Slurm that does not set it is asked.
if [ -z "${SLURM_JOB_END_TIME-}" ]; then
    end=$(date -d "$(squeue -h -j "$SLURM_JOB_ID" -o %e)" +%s 2>/dev/null) && export SLURM_JOB_END_TIME="$end" # NONE is no date: no limit
fi

stepmill run "$pipeline" --run "$run" --placement external --threads "$SLURM_CPUS_PER_TASK"
code=$?
if [ $code -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt $most ]; then
    scontrol requeue "$SLURM_JOB_ID" # ends this shell
fi
exit $code
