# How StarPU is configured: the same as scripts/getstarpu/build.py, which a test holds it to.
{
  minimum = "1.4";

  common = [
    "--enable-maxcpus=256"
    "--enable-maxcudadev=16"
    "--disable-build-doc"
    "--disable-build-examples"
    "--disable-build-tests"
    "--disable-fortran"
    "--disable-fxt"
    "--disable-glpk"
    "--disable-hip"
    "--disable-mpi"
    "--disable-opencl"
    "--disable-openmp"
    "--disable-papi"
    "--disable-socl"
    "--disable-starpufft"
    "--disable-starpupy"
    "--disable-static"
  ];

  variants = {
    # Idle workers sleep instead of burning the watts that are to be measured.
    native = [
      "--enable-blocking-drivers"
      "--disable-cuda"
    ];
    simgrid = [ "--enable-simgrid" ];
  };
}
