// zx for modules that load it only when they need it: it adds 50 ms to the start of a
// command. The bundler does not find the names of a package that is imported dynamically.

export { $ } from "zx/core";
