"""What all nodes share: parameters, the life of a lifecycle node, diagnostics, signals.

    unconfigured --open()--> inactive --begin()--> active --end()--> inactive --close()--> unconfigured

A node configures and activates itself unless `autostart` is off. Everything happens on the executor's thread; the work is done by threads
of percodec's own. On SIGINT and SIGTERM what was taken is finished and published before the process ends with 0.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from percodec.runtime.messages.topic_status import Input, Snapshot, TopicStatus
from percodec.runtime.run.live import signals_counted
from percodec.runtime.session import default_bundle, open_bundle
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import PercodecError, reason
from percodec_ros.parameters import NODES, Parameter
from percodec_ros.topic_input import TopicInput

LOOK_S = 0.5
SUCCESS, FAILURE, ERROR = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE, TransitionCallbackReturn.ERROR


class PercodecNode(LifecycleNode):
    """A node does its own in `open`, `begin`, `end`, `close`, `failed`, `fill` and `changed`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.state, self.fault, self.active_since = "unconfigured", "", 0
        self.status = TopicStatus()
        self.input: TopicInput | None = None
        self._bundle: Bundle | None = None
        self._parameters_of = {parameter.name: parameter for parameter in NODES[name]}
        self.add_on_set_parameters_callback(self._asked)  # before they are declared: it also judges what the command line says
        for parameter in NODES[name]:
            self.declare_parameter(parameter.name, parameter.default, _descriptor(parameter))
        # ROS drops what nobody declares without a word; where rclpy lets us see it, a slip of the pen is said.
        for given in sorted(getattr(self, "_parameter_overrides", ())):
            if not self.has_parameter(given) and not given.startswith("qos_overrides."):
                self.get_logger().warning(f"there is no parameter {given}; see config/{name}.param.yaml")
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # the simulation's time may stand still
        self.create_timer(LOOK_S, self._look, clock=steady)
        self.create_timer(self.value("diagnostics_period_s"), self._report, clock=steady)

    # -- what a node is ------------------------------------------------------------------------------------------------
    def open(self) -> None:
        """Everything that may be refused: bundle, networks, settings. Raises `PercodecError`."""

    def begin(self) -> None:
        """Take what comes. Raises `PercodecError`."""

    def end(self) -> None:
        """Take no more, finish what was taken."""

    def close(self) -> None:
        """Undo `open`."""

    def failed(self) -> str:
        """Why an active node cannot go on; "" where it can. Asked twice a second."""
        return ""

    def fill(self, snapshot: Snapshot) -> None:
        """Add to what diagnostics are told."""

    def changed(self, name: str, value: Any) -> None:
        """A parameter that may change at any time did."""

    # -- for the nodes --------------------------------------------------------------------------------------------------
    def value(self, name: str) -> Any:
        """A parameter; an empty string in a list is none."""
        value = self.get_parameter(name).value
        return [text for text in value if text] if isinstance(self._parameters_of[name].default, list) else value

    @property
    def bundle(self) -> Bundle:
        """The one that is open."""
        assert self._bundle is not None, "a configured node has a bundle"
        return self._bundle

    def now_ns(self) -> int:
        """The robot's time or the simulation's."""
        return int(self.get_clock().now().nanoseconds)

    @property
    def simulated(self) -> bool:
        """Time comes from /clock."""
        return bool(self.get_parameter("use_sim_time").value)

    def start(self) -> None:
        """Where `autostart` says so."""
        if self.value("autostart") and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def stop(self) -> None:
        """Finish what was taken and undo everything."""
        if self.state == "active":
            self.trigger_deactivate()
        if self.state == "inactive":
            self.trigger_cleanup()

    # -- the life ---------------------------------------------------------------------------------------------------------
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            folder = self.value("bundle")
            self._bundle = open_bundle(Path(folder) if folder else default_bundle())
            self.open()
        except PercodecError as error:
            self.fault = f"cannot be configured: {reason(error)}"
            self.get_logger().error(self.fault)
            self.close()
            return FAILURE
        self.fault, self.state = "", "inactive"
        self.get_logger().info(f"bundle {self.bundle.name}@{self.bundle.digest[:12]} is open")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        done = super().on_activate(state)  # publishers first, so that nothing is published into the void
        try:
            self.status = TopicStatus()
            self.begin()
        except PercodecError as error:
            self.fault = f"cannot be activated: {reason(error)}"
            self.get_logger().error(self.fault)
            self._finish()
            super().on_deactivate(state)
            return FAILURE
        self.fault, self.state, self.active_since = "", "active", time.monotonic_ns()
        return done

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._finish()
        done = super().on_deactivate(state)
        if self.fault:
            return ERROR
        self.state = "inactive"
        return done

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        done = super().on_cleanup(state)
        self._let_go()
        return done

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self.state == "active":
            self.on_deactivate(state)
        if self.state == "inactive":
            self.close()
        self.state = "finalized"
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._finish()
        self._let_go()
        return super().on_error(state)

    def _finish(self) -> None:
        self.active_since = 0
        if self.input is not None:
            self.input.close()
            self.input = None
        self.end()

    def _let_go(self) -> None:
        self.close()
        self._bundle, self.state = None, "unconfigured"
        # A pipeline and its threads know each other; and what is freed piecemeal stays with the process unless it is asked for.
        gc.collect()
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)

    # -- twice a second, and once ------------------------------------------------------------------------------------------
    def _look(self) -> None:
        if self.state != "active":
            return
        if self.input is not None:
            self.input.look()
        if why := self.failed():
            self.fault = why
            self.get_logger().error(f"{why}; configure and activate it again")
            self._report()
            self.trigger_deactivate()

    def _report(self) -> None:
        now = time.monotonic_ns()
        told = self.input.about if self.input is not None else Input()
        snapshot = Snapshot(self.state, now, self.active_since, input=told, faults=(self.fault,) if self.fault else ())
        hardware = ""
        if self._bundle is not None:
            hardware = f"{self.bundle.name}@{self.bundle.digest[:12]}"
            snapshot.pixels = self.bundle.frame_height * self.bundle.frame_width
            snapshot.about |= {"bundle": hardware, "backend": self.value("backend")}
        self.fill(snapshot)
        report = self.status.report(snapshot)
        name = self.get_fully_qualified_name().lstrip("/")
        values = [KeyValue(key=key, value=text) for key, text in report.values.items()]
        status = DiagnosticStatus(
            level=bytes([report.level]), name=f"{name}: percodec", message=report.message, hardware_id=hardware, values=values
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _asked(self, wanted: list[Any]) -> SetParametersResult:
        for parameter in wanted:
            known = self._parameters_of.get(parameter.name)
            if known is None:
                continue
            if known.choices and parameter.value not in known.choices:
                return SetParametersResult(successful=False, reason=f"it is one of {', '.join(known.choices)}")
            if known.when == "configure" and self.state != "unconfigured":
                return SetParametersResult(successful=False, reason=f"{known.name} can change only while the node is unconfigured")
        if self.state == "active":
            for parameter in wanted:
                self.changed(parameter.name, parameter.value)
        return SetParametersResult(successful=True)


def _descriptor(parameter: Parameter) -> ParameterDescriptor:
    choices = f"one of {', '.join(parameter.choices)}" if parameter.choices else ""
    found = ParameterDescriptor(description=parameter.description, additional_constraints=choices, read_only=parameter.when == "start")
    if parameter.low is not None and parameter.high is not None:
        if isinstance(parameter.default, float):
            found.floating_point_range = [FloatingPointRange(from_value=float(parameter.low), to_value=float(parameter.high), step=0.0)]
        else:
            found.integer_range = [IntegerRange(from_value=int(parameter.low), to_value=int(parameter.high), step=1)]
    return found


def run(make: Callable[[], PercodecNode]) -> int:
    """The process of one node, until a signal. Returns its exit code."""
    # rclpy's own handler ends the context under the threads that still publish.
    try:
        rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # whatever the arguments were: each kind of mistake has a type of its own, none of them public
        print(f"percodec_ros: {reason(error)}", file=sys.stderr)
        return 2
    node: PercodecNode | None = None
    executor = SingleThreadedExecutor()
    try:
        with signals_counted() as received:
            node = make()
            executor.add_node(node)
            node.start()
            while not received:
                executor.spin_once(timeout_sec=LOOK_S)
            node.get_logger().info(f"{received[0]}: finishing")
            node.stop()
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        print(f"percodec_ros: {reason(error)}", file=sys.stderr)
        return 2
    finally:
        executor.shutdown()
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


__all__ = ["LOOK_S", "PercodecNode", "run"]
