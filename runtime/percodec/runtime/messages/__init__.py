"""ROS messages without ROS: their bytes, the pictures in them, their calibration. For nodes and for bags alike."""
