#!/bin/sh
# Makes the files of tests/storage/media/ that PyAV cannot encode, each a second of a sample call.
# Needs ffmpeg with libgsm and libvorbis; run it at the root of the checkout, after make-samples.sh.
set -eu
cd "$(dirname "$0")/.."
to=tests/storage/media
mkdir -p "$to"
make_file() { # name, ffmpeg's arguments
    name=$1
    shift
    ffmpeg -v error -y -ss 1 -t 1 -i samples/fault.wav -map_metadata -1 -fflags +bitexact "$@" "$to/$name"
}
make_file gsm.wav -c:a libgsm_ms
make_file speech.gsm -f gsm -c:a libgsm
make_file vorbis.ogg -ar 16000 -c:a libvorbis -q:a 0
ls -l "$to"
