# A stand-in for nixpkgs that keeps what it is asked for: each package carries its arguments as `asked`.
#
# A name, an argument or an option that nixpkgs does not have is an error here, too.
{
  system,
  config ? { },
  pythonVersions ? { },
  starpuVersion ? "1.4.7",
}:
let
  lib = import ./lib.nix;

  # Arguments may be a function of themselves, as in nixpkgs.
  mkDerivation =
    arguments:
    let
      asked = if builtins.isFunction arguments then arguments asked else arguments;
      printable = builtins.removeAttrs asked [ "meta" ];
      name = asked.name or "${asked.pname}-${asked.version}";
    in
    derivation {
      inherit name system;
      builder = "/bin/sh";
      args = [
        "-c"
        "echo a stand-in cannot be built; exit 1"
      ];
      # Forces every argument, and makes the packages among them dependencies.
      asked = builtins.toJSON printable;
    }
    // {
      inherit asked name;
      inherit (asked) version;
      overrideAttrs = change: mkDerivation (self: asked // change asked);
    };

  versioned = arguments: mkDerivation ({ version = "0"; } // arguments);
  named =
    name:
    versioned {
      pname = name;
    };

  overridable =
    function: arguments:
    function arguments
    // {
      override = changes: overridable function (arguments // changes);
    };

  # nixpkgs' pkgs/by-name/st/starpu: the arguments that it takes, and the attributes that overrideAttrs sees.
  starpu = overridable (
    {
      stdenv,
      enableSimgrid ? false,
      enableMPI ? false,
    }:
    stdenv.mkDerivation (self: {
      pname = "starpu";
      version = starpuVersion;
      inherit enableSimgrid enableMPI;
      nativeBuildInputs = [ pkgs.pkg-config ];
      buildInputs = [ (named "libuuid") ];
      propagatedBuildInputs = [ pkgs.hwloc ] ++ lib.optional self.enableSimgrid pkgs.simgrid;
      configureFlags = lib.optional self.enableSimgrid "--enable-simgrid";
    })
  ) { inherit (pkgs) stdenv; };

  python =
    let
      module = name: version: versioned { pname = name; inherit version; };
      set = builtins.mapAttrs module (import ./python.nix // pythonVersions) // {
        buildPythonPackage = arguments: mkDerivation arguments;
        fetchPypi = fetch "fetchPypi";
      };
    in
    {
      pkgs = set;
      withPackages =
        choose:
        versioned {
          pname = "python3-env";
          modules = choose set;
        };
    };

  fetch =
    how: arguments:
    versioned (
      {
        pname = "source";
        inherit how;
      }
      // builtins.removeAttrs arguments [ "version" ]
    );

  unfree = value: if config.allowUnfree or false then value else throw "this package is not free software";

  pkgs =
    lib.genAttrs [
      "bison"
      "boost"
      "cmake"
      "flex"
      "fmt"
      "gawk"
      "gcc"
      "git"
      "gnumake"
      "hwloc"
      "import-linter"
      "openssl"
      "perl"
      "pkg-config"
      "pkg-config-unwrapped"
      "protobuf"
      "simgrid"
      "util-linux"
      "vite"
      "autoAddDriverRunpath"
    ] named
    // {
      inherit lib starpu;
      stdenv = { inherit mkDerivation; };
      python313 = python;
      cudaPackages_12 = {
        cudatoolkit = unfree (named "cudatoolkit");
        backendStdenv = {
          mkDerivation = arguments: unfree (mkDerivation arguments);
        };
      };
      rustPlatform.buildRustPackage = mkDerivation;
      fetchzip = fetch "fetchzip";
      fetchFromGitHub = fetch "fetchFromGitHub";

      callPackage =
        file: arguments:
        let
          function = import file;
        in
        function (builtins.intersectAttrs (builtins.functionArgs function) pkgs // arguments);

      mkShell = arguments: mkDerivation ({ name = "nix-shell"; version = "0"; } // arguments);
      linkFarm = name: entries: mkDerivation { inherit name entries; version = "0"; };
      symlinkJoin = arguments: versioned arguments;
      writeText = name: text: versioned { inherit name text; };
      writeShellApplication =
        {
          name,
          text,
          runtimeInputs ? [ ],
        }@arguments:
        versioned arguments;
      runCommand =
        name: environment: commands:
        versioned ({ inherit name commands; } // environment);
    };
in
pkgs
