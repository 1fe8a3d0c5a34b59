#!/usr/bin/env bash
# An example capture session: record a service three times, a minute apart, and keep for each
# recording the top call sites and a profile that `go tool pprof` opens.
#
# usage: sudo scripts/capture-session.sh NAME [DIRECTORY]
set -euo pipefail

name=${1:?usage: capture-session.sh NAME [DIRECTORY]}
directory=${2:-.}

for round in 1 2 3; do
	capture=$directory/$name-$round.heaptap
	heaptap record --mode exact --name "$name" --for 10s -o "$capture"
	heaptap report "$capture" --sort alloc-bytes --limit 20 >"$directory/$name-$round.txt"
	heaptap report "$capture" --format pprof -o "$directory/$name-$round.pb.gz"
	if [ "$round" -lt 3 ]; then
		sleep 60
	fi
done
