# Python with what pyproject.toml asks for, in nixpkgs' versions, set against those of requirements.lock.
{
  pkgs,
  hashes,
  extras ? [ ],
}:
let
  inherit (pkgs) lib;
  python = pkgs.python313;
  project = (builtins.fromTOML (builtins.readFile ../pyproject.toml)).project;

  normalised = name: builtins.replaceStrings [ "_" "." ] [ "-" "-" ] (lib.toLower name);
  pieces = separator: text: builtins.filter builtins.isString (builtins.split separator text);

  # "hydra-core>=1.3,<1.4" -> { name = "hydra-core"; bounds = [ [ ">=" "1.3" ] [ "<" "1.4" ] ]; }
  requirement =
    text:
    let
      parts = builtins.match "([A-Za-z0-9._-]+)(.*)" text;
      bound =
        piece:
        let
          found = builtins.match " *(>=|<=|==|<|>) *([0-9.]+) *" piece;
        in
        if found == null then throw "nix/python.nix cannot read the requirement ${text}" else found;
    in
    {
      inherit text;
      name = normalised (builtins.elemAt parts 0);
      bounds = map bound (builtins.filter (piece: piece != "") (pieces "," (builtins.elemAt parts 1)));
    };

  holds =
    version: bound:
    let
      order = builtins.compareVersions version (builtins.elemAt bound 1);
    in
    {
      ">=" = order >= 0;
      "<=" = order <= 0;
      "==" = order == 0;
      ">" = order > 0;
      "<" = order < 0;
    }
    .${builtins.elemAt bound 0};

  # { numpy = "2.4.6"; ... }
  locked =
    let
      lines = pieces "\n" (builtins.readFile ../requirements.lock);
      pin = line: builtins.match "([A-Za-z0-9._-]+)==([^ ]+)" line;
      pins = builtins.filter (found: found != null) (map pin lines);
    in
    builtins.listToAttrs (
      map (found: {
        name = normalised (builtins.elemAt found 0);
        value = builtins.elemAt found 1;
      }) pins
    );

  # Type stubs that nixpkgs lacks; pure Python, so that the wheel will do.
  types-cffi =
    set:
    set.buildPythonPackage rec {
      pname = "types-cffi";
      version = locked.types-cffi;
      format = "wheel";
      src = set.fetchPypi {
        pname = "types_cffi";
        inherit version format;
        python = "py3";
        dist = "py3";
        hash = hashes.types-cffi;
      };
      dependencies = [ set.types-setuptools ];
    };

  # CuPy's name on PyPI says for which CUDA; nixpkgs builds it for its own.
  attribute = name: if lib.hasPrefix "cupy-cuda" name then "cupy" else name;

  # A program in nixpkgs, not a module.
  programs = {
    inherit (pkgs) import-linter;
  };

  requirements = map requirement (
    project.dependencies
    ++ project.optional-dependencies.dev
    ++ builtins.concatMap (extra: project.optional-dependencies.${extra}) extras
  );
  modules = builtins.filter (asked: !programs ? ${asked.name}) requirements;

  module = set: name: if name == "types-cffi" then types-cffi set else set.${attribute name};
  package = name: programs.${name} or (module python.pkgs name);

  checked =
    asked: found:
    if builtins.all (holds found.version) asked.bounds then
      found
    else
      throw "nixpkgs has ${asked.name} ${found.version}, but pyproject.toml asks for ${asked.text}: nix flake update";

  compared = map (asked: {
    inherit (asked) name;
    locked = locked.${asked.name} or "-";
    nixpkgs = (package asked.name).version;
  }) requirements;
  differing = builtins.filter (one: one.locked != one.nixpkgs) compared;
  line = one: "${one.name} ${one.nixpkgs} (locked: ${one.locked})";
in
{
  inherit compared;

  # A folder like a virtual environment: what DAHL_VENV names.
  environment = pkgs.symlinkJoin {
    name = "dahl-python";
    paths = [
      (python.withPackages (set: map (asked: checked asked (module set asked.name)) modules))
    ]
    ++ map (name: programs.${name}) (builtins.attrNames programs);
  };

  # One line for each requirement.
  versions = pkgs.writeText "dahl-python-versions" (lib.concatMapStrings (one: line one + "\n") compared);

  summary =
    "${toString (builtins.length differing)} of ${toString (builtins.length compared)} Python packages"
    + " have another version than requirements.lock: nix run .#versions lists them";
}
