// sluice_ops: the ops of the expert layer for NumPy, under the names that other engines gave them.
//
// Arrays are read where they lie; results are new arrays. Calls release the interpreter's lock and
// take turns on one pool of threads. Errors: ValueError, TypeError, NotImplementedError,
// MemoryError with the op's sentence.
#include "module.h"

#include "simd/isa.h"

PYBIND11_MODULE(sluice_ops, m) {
  using namespace sluice::python;
  m.doc() = "Mixture-of-Experts ops of Sluice for NumPy: exact, and equal on every machine.";
  // Lives as long as the module's functions, which is as long as the interpreter.
  static Machine machine;
  m.def(
      "set_num_threads", [](int n) { machine.set_threads(n); }, py::arg("threads"),
      "Worker threads of all calls; 0: one per core.");
  m.def(
      "isa", [] { return std::string(sluice::isa_name(machine.runtime().isa())); },
      "The code path in use (SLUICE_ISA forces one).");
  add_routing(m, machine);
  add_permute(m, machine);
  add_experts(m, machine);
  add_grouped(m, machine);
  add_quant(m, machine);
  add_quant_experts(m, machine);
  add_fused_flags(m);
}
