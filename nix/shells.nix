# `nix develop`, `nix develop .#cuda`, `nix develop .#traces`.
{
  pkgs,
  cudaPkgs,
  starpu,
  python,
  cudaPython,
  pajeng,
}:
let
  shell =
    {
      prefixes ? starpu.prefixes,
      venv ? python.environment,
      summary ? python.summary,
      packages ? [ ],
      hook ? "",
    }:
    pkgs.mkShell {
      # The bindings are compiled in the checkout; everything else is there.
      nativeBuildInputs = [
        venv
        pkgs.pkg-config
        pkgs.gnumake
        pkgs.git
        pkgs.util-linux # flock
      ]
      ++ packages;
      buildInputs = starpu.dependencies;
      STARPU_PREFIXES = prefixes;
      DAHL_VENV = venv;
      shellHook = ''
        echo "StarPU: $STARPU_PREFIXES"
        echo "${summary}"
        ${hook}
      '';
    };
in
{
  default = shell { };

  cuda = shell {
    prefixes = starpu.cudaPrefixes;
    venv = cudaPython.environment;
    summary = cudaPython.summary;
    packages = [ cudaPkgs.cudaPackages_12.cudatoolkit ];
    # The driver's libraries (libcuda, libnvidia-ml) belong to the host's kernel module and cannot come from Nix.
    hook = ''
      export LD_LIBRARY_PATH="/run/opengl-driver/lib''${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
      [ -e /run/opengl-driver/lib/libcuda.so.1 ] ||
        echo "no libcuda.so.1 in /run/opengl-driver/lib: docs/install.md tells how the host's driver is linked there" >&2
    '';
  };

  traces = shell {
    prefixes = starpu.tracedPrefixes;
    packages = [
      starpu.traced # starpu_fxt_tool
      pkgs.vite
      pajeng
    ];
  };
}
