"""The arithmetic a decoder is made of, as a record of functions, in two versions with equal results.

`reference` is plain torch and runs on any device; it is the definition. `native` is C++ for the CPU, built by the
package's own build where a compiler is found, and tested against the reference. `flex` is another attention, for GPUs.
`ops_for(device, dtype)` chooses.
"""
