// Completion for shells, made from the command line that there is.

import type { CAC } from "cac";
import { dashed } from "./options.ts";

/** Words that a command takes in its first place. */
export type Places = Record<string, readonly string[] | "sessions">;

type Option = CAC["commands"][number]["options"][number];

interface Known {
  name: string;
  description: string;
  options: string[];
  /** What its first argument may be. */
  words: readonly string[];
  takesSession: boolean;
}

function knownCommands(cli: CAC, places: Places): Known[] {
  return cli.commands.filter(({ name }) => name !== "").map((command) => {
    const place = places[command.name] ?? [];
    return {
      name: command.name,
      description: command.description,
      options: command.options.flatMap(written),
      words: place === "sessions" ? [] : place,
      takesSession: place === "sessions",
    };
  });
}

/** An option as it is typed: what cac knows as mcp may be --no-mcp. */
function written({ names, negated }: Option): string[] {
  return names.map((name) =>
    negated ? dashed(name).replace(/^--?/, "--no-") : dashed(name)
  );
}

/** Session names are files, so that no process need be asked for them. */
const sessionNames =
  'ls "${HAL9000_HOME:-$HOME/.hal9000}/sessions/kept" 2>/dev/null | sed -n "s/\\.json$//p"';

const generators = { bash, zsh, fish };

export const shells = Object.keys(generators);

/** The script that a shell loads; undefined for a shell that is none of these. */
export function completionScript(
  cli: CAC,
  places: Places,
  shell: string,
): string | undefined {
  if (!Object.hasOwn(generators, shell)) return undefined;
  const globals = cli.commands.filter(({ name }) => name === "")
    .flatMap(({ options }) => options.flatMap(written));
  const generate = generators[shell as keyof typeof generators];
  return generate(knownCommands(cli, places), globals);
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

/** One word of a shell. */
function quoted(words: string[]): string {
  return `'${words.join(" ").replaceAll("'", `'\\''`)}'`;
}
