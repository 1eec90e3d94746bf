// The parts of the module sluice_ops.
#pragma once

#include "machine.h"

namespace sluice::python {

void add_routing(py::module_& m, Machine& machine);
void add_experts(py::module_& m, Machine& machine);
void add_permute(py::module_& m, Machine& machine);
void add_grouped(py::module_& m, Machine& machine);
void add_quant(py::module_& m, Machine& machine);
void add_quant_experts(py::module_& m, Machine& machine);
// Behind the others, whose functions it calls.
void add_fused_flags(py::module_& m);

}  // namespace sluice::python
