#!/bin/bash
# One run on one node. When the node fails or the job is preempted, Slurm starts the job again, and the run goes on where it was.
# usage: sbatch [OPTION...] one-node.sh PIPELINE.yaml RUN_DIRECTORY
#SBATCH --job-name=stepmill
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

# No shell stays in front of the run: Slurm's signals go to it, and its exit code is the job's.
exec stepmill run "${1:?the pipeline file}" --run "${2:?the run directory}" --placement external --threads "$SLURM_CPUS_PER_TASK"
