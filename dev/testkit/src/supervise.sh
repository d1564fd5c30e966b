# Runs the parts of a control plane, and nodes, for as long as somebody holds the other end of standard input, then ends
# them and removes the folder. So nothing stays behind whatever becomes of the test: an end, a panic, a kill.
#
# Lines: `start NAME COMMAND...`, `at_end COMMAND` (quoted as a shell wants it).
folder=$1
trap '' INT TERM HUP
pids=
last=
start() {
  name=$1
  shift
  "$@" >"$folder/$name.log" 2>&1 </dev/null &
  pids="$pids $!"
  echo $! >"$folder/$name.pid"
}
at_end() { last="$last
$1"; }
while IFS= read -r line; do eval "$line"; done
[ -z "$pids" ] || kill -9 $pids 2>/dev/null
wait
eval "$last"
# What a node's processes still held is gone with them, a moment later.
for try in 1 2 3 4 5; do
  rm -rf "$folder" 2>/dev/null && break
  sleep 0.2
done
