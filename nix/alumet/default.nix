# The Alumet agent, which reads energy counters of CPUs and GPUs; not in nixpkgs.
{
  lib,
  rustPlatform,
  fetchFromGitHub,
  pkg-config,
  openssl,
  protobuf,
  srcHash,
  cargoHash,
}:
rustPlatform.buildRustPackage rec {
  pname = "alumet-agent";
  version = "0.9.4";
  src = fetchFromGitHub {
    owner = "alumet-dev";
    repo = "alumet";
    tag = "v${version}";
    hash = srcHash;
  };
  inherit cargoHash;
  # One program of a workspace whose other members are libraries and their tests.
  cargoBuildFlags = [ "--package=alumet-agent" ];
  nativeBuildInputs = [
    pkg-config
    protobuf
  ];
  buildInputs = [ openssl ];
  # They read counters that a sandbox does not have.
  doCheck = false;
  meta = {
    description = "Agent that measures energy and performance";
    homepage = "https://alumet.dev";
    license = lib.licenses.eupl12;
    mainProgram = "alumet-agent";
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
    ];
  };
}
