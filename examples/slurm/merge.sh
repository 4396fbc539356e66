#!/bin/bash
# The outputs of an array of shards put together, as one run would have written them.
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

exec stepmill merge "${1:?the run directory}"
