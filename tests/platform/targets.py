"""Targets for which programs are planned."""

from jaxpinv._platform.target import Target

CPU = Target(is_cpu=True, is_whole=True)
GPU = Target(is_cpu=False, is_whole=True, is_cuda=True)
TPU = Target(is_cpu=False, is_whole=True)
DIVIDED = Target(is_cpu=True, is_whole=False, devices=8)
TYPED = Target(is_cpu=True, is_whole=True, has_typed_axes=True)
