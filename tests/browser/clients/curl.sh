#!/bin/sh
# Usage: curl.sh CURL URL
# Follows the stream of the URL with curl.
curl=$1 url=$2
position=$(mktemp)
echo 1000 >"$position"
trap 'rm -f "$position"' EXIT
trap 'exit 0' TERM
while read -r retry last <"$position"; do
    "$curl" --silent --no-buffer ${last:+-H "Last-Event-ID: $last"} "$url" | {
        id=$last event=message data=''
        while IFS= read -r line; do
            case $line in
            id:*) id=${line#id: } ;;
            event:*) event=${line#event: } ;;
            data:*) data=${line#data: } ;; # JSON is one line
            retry:*) retry=${line#retry: } ;;
            "") # an event is complete; what has none now, is not
                [ -z "$data" ] || printf '%s\t%s\t%s\n' "$event" "$id" "$data"
                echo "$retry $id" >"$position"
                event=message data=''
                ;;
            esac
        done
    }
    sleep "$(printf '%d.%03d' $((retry / 1000)) $((retry % 1000)))"
done
