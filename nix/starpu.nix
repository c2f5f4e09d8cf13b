# The variants of StarPU, each from nixpkgs' own expression with this project's options.
{
  pkgs,
  cudaPkgs,
  fxt,
}:
let
  inherit (pkgs) lib;
  options = import ./options.nix;

  without = unwanted: builtins.filter (flag: !builtins.elem flag unwanted);

  configured =
    {
      variant,
      starpu,
      flags,
      nativeInputs ? [ ],
      inputs ? [ ],
    }:
    if !lib.versionAtLeast starpu.version options.minimum then
      throw "nixpkgs has StarPU ${starpu.version}, but ${options.minimum} or newer is needed: nix flake update"
    else
      starpu.overrideAttrs (old: {
        pname = "starpu-${variant}";
        # What nixpkgs sets for enableSimgrid is not said twice.
        configureFlags = old.configureFlags ++ without old.configureFlags flags;
        nativeBuildInputs = old.nativeBuildInputs ++ nativeInputs;
        buildInputs = old.buildInputs ++ inputs;
      });

  native = configured {
    variant = "native";
    starpu = pkgs.starpu.override {
      enableSimgrid = false;
      enableMPI = false;
    };
    flags = options.common ++ options.variants.native;
  };

  simgrid = configured {
    variant = "simgrid";
    starpu = pkgs.starpu.override {
      enableSimgrid = true;
      enableMPI = false;
    };
    flags = options.common ++ options.variants.simgrid;
  };

  # Like native, and writes FxT traces for ViTE and pajeng where STARPU_FXT_TRACE=1 asks for them.
  traced = configured {
    variant = "traced";
    starpu = pkgs.starpu.override {
      enableSimgrid = false;
      enableMPI = false;
    };
    flags = without [ "--disable-fxt" ] (options.common ++ options.variants.native) ++ [ "--enable-fxt" ];
    inputs = [ fxt ];
  };

  # CUDA 12: the driver of StarPU 1.4 reads a field that CUDA 13 has removed.
  cuda =
    let
      inherit (cudaPkgs.cudaPackages_12) cudatoolkit backendStdenv;
    in
    configured {
      variant = "cuda";
      starpu = cudaPkgs.starpu.override {
        stdenv = backendStdenv;
        enableSimgrid = false;
        enableMPI = false;
      };
      flags = without [ "--disable-cuda" ] (options.common ++ options.variants.native) ++ [
        "--with-cuda-dir=${cudatoolkit}"
      ];
      # libcuda comes with the host's driver and is found in /run/opengl-driver/lib.
      nativeInputs = [ cudaPkgs.autoAddDriverRunpath ];
      inputs = [ cudatoolkit ];
    };

  # The folder that STARPU_PREFIXES names.
  prefixesOf =
    variants:
    pkgs.linkFarm "starpu-prefixes" (
      map (name: {
        inherit name;
        path = variants.${name};
      }) (builtins.attrNames variants)
    );
in
{
  inherit
    native
    simgrid
    traced
    cuda
    ;
  prefixes = prefixesOf { inherit native simgrid; };
  tracedPrefixes = prefixesOf {
    native = traced;
    inherit simgrid;
  };
  cudaPrefixes = prefixesOf { inherit native simgrid cuda; };
  # What the bindings need besides a prefix: StarPU's headers and pkg-config files refer to these.
  dependencies = [
    pkgs.hwloc
    pkgs.simgrid
  ];
}
