"""ROS bags without ROS: read any, change some of its topics, write MCAP. What is not changed comes out as it went in."""
