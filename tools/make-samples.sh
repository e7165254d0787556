#!/bin/sh
# Makes the sample calls in samples/ from samples/scripts/*.txt: invented talk, spoken by espeak-ng.
# Needs espeak-ng, ffmpeg (with libgsm, libmp3lame and libopus). Run it at the root of the checkout.
# A line of a script is "LEFT VOICE: text" or "RIGHT VOICE: text"; one party is heard on each side.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Every line becomes a piece of silence on one side and speech on the other, at 8 kHz.
speak() { # script -> $work/call.wav, 8 kHz stereo
    : > "$work/list"
    n=0
    while IFS= read -r line; do
        n=$((n + 1))
        side=${line%% *}
        rest=${line#* }
        voice=${rest%%:*}
        espeak-ng -v "$voice" -s 165 -w "$work/mono.wav" "${rest#*: }"
        case $side in
            LEFT) pan='pan=stereo|c0=c0|c1=0*c0' ;;
            RIGHT) pan='pan=stereo|c0=0*c0|c1=c0' ;;
        esac
        # It would read the rest of the script, were it let.
        ffmpeg -nostdin -v error -y -i "$work/mono.wav" -af "aresample=8000,$pan,apad=pad_dur=0.3" \
            -c:a pcm_s16le "$work/$n.wav"
        echo "file '$work/$n.wav'" >> "$work/list"
    done < "$1"
    ffmpeg -v error -y -f concat -safe 0 -i "$work/list" -c copy "$work/call.wav"
}

make_call() { # script, output file, ffmpeg's arguments for it
    speak "samples/scripts/$1.txt"
    output=samples/$2
    shift 2
    ffmpeg -v error -y -i "$work/call.wav" -map_metadata -1 -fflags +bitexact "$@" "$output"
}

make_call sahkokatko sahkokatko.wav -c:a pcm_s16le
make_call laskukysymys laskukysymys.wav -c:a pcm_alaw
make_call sopimus sopimus.mp3 -c:a libmp3lame -b:a 32k -ac 2
make_call tarjous tarjous.WAV -f wav -ac 1 -c:a libgsm_ms
make_call appointment appointment.ogg -ac 1 -c:a libopus -b:a 16k -application voip
make_call contract contract.ogg -c:a libopus -b:a 24k -application voip
make_call fault fault.wav -ac 1 -c:a pcm_mulaw
make_call offer offer.mp3 -ac 1 -c:a libmp3lame -b:a 16k
ls -l samples
