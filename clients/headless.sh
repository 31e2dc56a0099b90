#!/bin/sh
# Run an API graph on a ComfyUI server with curl and jq: headless.sh GRAPH [FOLDER]
# The same as headless.py, but curl reads no websocket, so the end is polled for. SERVER names the server.
set -eu
graph=$1 out=${2:-} server=${SERVER:-http://127.0.0.1:8188}
post() { curl -sS -H 'Content-Type: application/json' -d @- "$server$1"; }
say() { printf '%s\n' "$1"; } # echo would read the backslashes of JSON

# submit; a refused prompt answers with each node and its sentence. Without a client's name the history would
# lack what ComfyUI took from its cache.
answer=$(jq '{prompt: ., client_id: "headless.sh"}' "$graph" | post /prompt)
id=$(say "$answer" | jq -r '.prompt_id // empty')
if [ -z "$id" ]; then
    say "$answer" | jq '([.node_errors // {} | to_entries[] | .key as $node | .value.class_type as $class
        | .value.errors[] | {node: $node, class_type: $class,
            sentence: (if .details == "" then .message else .details end)}]) as $rows
        | {status: "refused", errors: (if $rows == [] then [{node: null, class_type: null,
            sentence: "\(.error.message) \(.error.details // "")" | rtrimstr(" ")}] else $rows end)}'
    exit 2
fi

# cancel this prompt, and no other, on Ctrl-C
cancel() {
    jq -n --arg id "$id" '{delete: [$id]}' | post /queue
    jq -n --arg id "$id" '{prompt_id: $id}' | post /interrupt
    exit 130
}
trap cancel INT TERM
say "queued as $id" >&2

# follow
until entry=$(curl -sS "$server/history/$id" | jq -e --arg id "$id" '.[$id] // empty'); do sleep 1; done

# fetch pictures, and experts, which a text names
if [ -n "$out" ]; then
    mkdir -p "$out"
    say "$entry" | jq -r '.outputs[] | .[] | .[] | if type == "object" and has("filename")
        then [.filename, .subfolder, .type]
        elif type == "string" then (split("\n")[] | select(startswith("saved as ")) | ltrimstr("saved as ")
            | split("/") | [.[-1], (.[:-1] | join("/")), "output"]) else empty end | join("\u001f")' |
        while IFS="$(printf '\037')" read -r name folder kind; do # no tab: read would join empty fields
            curl -sSG "$server/view" -o "$out/$(basename "$name")" --data-urlencode "filename=$name" \
                --data-urlencode "subfolder=$folder" --data-urlencode "type=$kind"
        done
fi

# what happened, as JSON
say "$entry" | jq --arg id "$id" '{prompt_id: $id, status: .status.status_str,
    errors: [.status.messages[] | select(.[0] == "execution_error") | .[1]
        | {node: .node_id, class_type: .node_type, sentence: (.exception_message | rtrimstr("\n"))}],
    texts: (.outputs | map_values(.text // empty))}'
[ "$(say "$entry" | jq -r .status.status_str)" = success ]
