// claudy completion: generates shell completion from the command definitions.

import type { CAC } from "cac";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { dashed } from "../cli/options.ts";
import { Failure } from "../std/errors.ts";
import { shellQuoted } from "../std/text.ts";
import { scriptCompletion } from "./script-completion.ts";

type Option = CAC["commands"][number]["options"][number];

interface Known {
  name: string;
  description: string;
  options: string[];
  /** Possible values of the first argument. */
  words: readonly string[];
  takesSession: boolean;
}

type Commands = [name: string, meaning: string, cli: CAC][];

/** `all` returns claudy's commands by name; the one that opens a project is "". */
export function completionCommand(
  io: Io,
  all: (io: Io) => Promise<Commands>,
): CAC {
  const cli = command("claudy completion");
  cli.command("[shell]", `Completion for ${shells.join(", ")}`)
    .example("source <(claudy completion bash)")
    .action(async (given: unknown) => {
      const shell = String(given ?? "");
      if (!isShell(shell)) {
        const message = given === undefined
          ? "Name a shell, such as: claudy completion bash"
          : `Unsupported shell: "${shell}"`;
        throw new Failure("usage", message, {
          hint: `Supported shells: ${shells.join(", ")}.`,
        });
      }
      const known = (await all(io)).map(knownCommand);
      const globals = known.filter(({ name }) => name === "")
        .flatMap(({ options }) => options);
      const named = known.filter(({ name }) => name !== "");
      const text = generators[shell](named, globals) + scriptCompletion[shell];
      io.answer(null, text.trimEnd());
    });
  return cli;
}

/** Commands whose argument is a session. */
const sessionCommands = ["attach", "stop", "logs"];

function knownCommand(
  [name, description, { commands }]: Commands[number],
): Known {
  const options = commands.flatMap(({ options }) => options.flatMap(written));
  const actions = commands.map(({ name }) => name).filter(Boolean);
  return {
    name,
    description,
    options: [...new Set(options)],
    words: name === "completion" ? shells : actions,
    takesSession: sessionCommands.includes(name),
  };
}

/** An option's names as typed: cac stores --no-mcp as mcp. */
function written({ names, negated }: Option): string[] {
  return names.map((name) =>
    negated ? dashed(name).replace(/^--?/, "--no-") : dashed(name)
  );
}

/** Sessions are listed from their files, without starting a process. */
const sessionNames =
  'ls "${HAL9000_HOME:-$HOME/.hal9000}/sessions/kept" 2>/dev/null | sed -n "s/\\.json$//p"';

const generators = { bash, zsh, fish };

const shells = Object.keys(generators);

function isShell(name: string): name is keyof typeof generators {
  return Object.hasOwn(generators, name);
}

function bash(commands: Known[], globals: string[]): string {
  const cases = commands.map(({ name, options, words, takesSession }) =>
    `    ${name}) words=${quoted([...words, ...options])}${
      takesSession ? "; sessions=yes" : ""
    } ;;`
  );
  return `# bash completion of claudy: source <(claudy completion bash)
_claudy_sessions() { ${sessionNames}; }
_claudy() {
  local current=\${COMP_WORDS[COMP_CWORD]} words sessions=
  case \${COMP_WORDS[1]} in
${cases.join("\n")}
    *) words=${quoted(globals)} ;;
  esac
  [ "$COMP_CWORD" -gt 1 ] || words=${
    quoted([...commands.map(({ name }) => name), ...globals])
  }
  [ "\${COMP_WORDS[1]} $COMP_CWORD" != "sessions 3" ] || sessions=yes
  [ -z "$sessions" ] || words="$words $(_claudy_sessions)"
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [ "$COMP_CWORD" -gt 1 ] || COMPREPLY+=($(compgen -d -- "$current"))
}
complete -F _claudy claudy
`;
}

function zsh(commands: Known[], globals: string[]): string {
  const described = commands.map(({ name, description }) =>
    `    ${quoted([`${name}:${description.replaceAll(":", "\\:")}`])}`
  );
  const cases = commands.map(({ name, options, words, takesSession }) =>
    `    ${name}) ${
      takesSession ? "compadd -- $(_claudy_sessions); " : ""
    }compadd -- ${[...words, ...options].join(" ")} ;;`
  );
  return `#compdef claudy
# zsh completion of claudy: source <(claudy completion zsh)
_claudy_sessions() { ${sessionNames}; }
_claudy() {
  local -a commands
  commands=(
${described.join("\n")}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    compadd -- ${globals.join(" ")}
    _files -/
    return
  fi
  [[ "$words[2] $CURRENT" != "sessions 4" ]] || compadd -- $(_claudy_sessions)
  case $words[2] in
${cases.join("\n")}
    *) compadd -- ${globals.join(" ")}; _files -/ ;;
  esac
}
(( $+functions[compdef] )) && compdef _claudy claudy
`;
}

function fish(commands: Known[], globals: string[]): string {
  const names = commands.map(({ name }) => name).join(" ");
  const first = `not __fish_seen_subcommand_from ${names}`;
  const option = (name: string) =>
    name.startsWith("--") ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`;
  const lines = commands.flatMap((
    { name, description, options, words, takesSession },
  ) => {
    const seen = `-n '__fish_seen_subcommand_from ${name}'`;
    return [
      `complete -c claudy -n '${first}' -f -a ${name} -d ${
        quoted([description])
      }`,
      ...(words.length > 0
        ? [`complete -c claudy ${seen} -f -a '${words.join(" ")}'`]
        : []),
      ...(takesSession || name === "sessions"
        ? [`complete -c claudy ${seen} -f -a '(_claudy_sessions)'`]
        : []),
      ...options.map((name) => `complete -c claudy ${seen} ${option(name)}`),
    ];
  });
  return `# fish completion of claudy: claudy completion fish | source
function _claudy_sessions
  set -l home $HAL9000_HOME
  test -n "$home"; or set home $HOME/.hal9000
  ls "$home/sessions/kept" 2>/dev/null | sed -n 's/\\.json$//p'
end
${lines.join("\n")}
${
    globals.map((name) => `complete -c claudy -n '${first}' ${option(name)}`)
      .join("\n")
  }
`;
}

/** Quotes words as one shell word. */
function quoted(words: string[]): string {
  return shellQuoted(words.join(" "));
}
