#!/usr/bin/env bash
# check.sh [FOLDER]: the nodes on a full ROS 2, in a workspace made in FOLDER (default: a new one). Needs a sourced ROS with colcon, rosbag2
# and rosbag2_storage_mcap, and a Python in which `import percodec, rclpy` works. Prints one line a check; the exit code is the failures'.
set -uo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
work="${1:-$(mktemp -d)}"
failed=0
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_DOMAIN_ID="${ROS_DOMAIN_ID:-79}"

die() { echo "check.sh: $1" >&2; exit 2; }
command -v ros2 >/dev/null || die "no ros2 here. Source ROS first: source /opt/ros/jazzy/setup.bash"
command -v colcon >/dev/null || die "no colcon here: sudo apt install python3-colcon-common-extensions"
python3 -c 'import rclpy, percodec.runtime' || die "this Python has not both rclpy and percodec: see README.md"

check() { # check NAME COMMAND...
    local name="$1" log="$work/check.log"
    shift
    if timeout 60 "$@" >"$log" 2>&1; then echo "ok    $name"; else echo "FAIL  $name"; sed 's/^/      /' "$log" | tail -n 5; failed=1; fi
}
says() { local word="$1"; shift; "$@" | tee /dev/stderr | grep -q "$word"; }
seen() { timeout -s INT "$1" ros2 topic hz "$2" | tee /dev/stderr | grep -q 'average rate'; }
export -f says seen

mkdir -p "$work" && cd "$work" || die "$work cannot be used"
check "colcon builds the package" python3 -m colcon build --base-paths "$here"
# shellcheck disable=SC1091
set +u && source install/setup.bash && set -u

ros2 launch percodec_ros camera.launch.xml "source:=synthetic://road?frames=100000" camera:=front >launch.log 2>&1 &
launch=$!
trap 'kill -INT $launch 2>/dev/null; wait $launch' EXIT
check "packets" bash -c 'seen 10 /front/image_raw/percodec'
check "labels" bash -c 'seen 10 /front/segmentation/labels'
check "packets are reliable" bash -c 'says RELIABLE ros2 topic info -v /front/image_raw/percodec'
check "an overlay" ros2 topic echo --once --no-arr /front/segmentation/overlay/compressed
check "diagnostics" bash -c 'says "front/camera: percodec" ros2 topic echo --once /diagnostics'
if ros2 interface show vision_msgs/msg/LabelInfo >/dev/null 2>&1; then
    check "class names" ros2 topic echo --once --qos-durability transient_local --qos-reliability reliable /front/segmentation/label_info
else
    echo "skip  class names: vision_msgs is not installed"
fi
check "a parameter" ros2 param set /front/camera rate_hz 5.0
check "deactivate" ros2 lifecycle set /front/camera deactivate
check "activate" ros2 lifecycle set /front/camera activate
check "recorded" bash -c 'timeout -s INT 10 ros2 bag record -s mcap -o drive /front/image_raw/percodec /front/segmentation/labels; test -s drive/metadata.yaml'
check "percodec reads the recording" percodec bag info drive
check "predicted from the recording" percodec bag predict drive predicted --topic /front/image_raw/percodec
check "and played" bash -c 'timeout -s INT 20 ros2 bag play predicted'

kill -INT $launch && wait $launch
trap - EXIT
check "a clean end" bash -c '! grep -q Traceback launch.log'
exit $failed
