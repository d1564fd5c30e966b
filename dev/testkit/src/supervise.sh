# Runs the parts of a control plane for as long as somebody holds the other end of standard input, then ends them and
# removes the folder. So nothing stays behind whatever becomes of the test: an end, a panic, a kill.
#
# Lines: `start NAME COMMAND...` (quoted as a shell wants it).
folder=$1
trap '' INT TERM HUP
pids=
start() {
  name=$1
  shift
  "$@" >"$folder/$name.log" 2>&1 </dev/null &
  pids="$pids $!"
  echo $! >"$folder/$name.pid"
}
while IFS= read -r line; do eval "$line"; done
[ -z "$pids" ] || kill -9 $pids 2>/dev/null
wait
rm -rf "$folder"
