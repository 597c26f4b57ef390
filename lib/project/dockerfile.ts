// Finds out which files of its context a Dockerfile uses.

/**
 * The paths of the context that COPY and ADD name, without those of images and URLs.
 * Undefined if it may use any file, or if this cannot be determined. A path that is
 * missed here makes the build fail.
 */
export function copiedPaths(dockerfile: string): string[] | undefined {
  if (/^#\s*escape\s*=/im.test(dockerfile)) return undefined;
  const lines = dockerfile.replace(/\\[ \t]*\r?\n(\s*#.*\r?\n)*/g, " ").split(
    /\r?\n/,
  );
  const paths: string[] = [];
  for (const line of lines) {
    // A mount without a type is a bind mount.
    if (/--mount=(?!\S*\btype=(cache|tmpfs|secret|ssh)\b)/.test(line)) {
      return undefined;
    }
    const rest = /^\s*(?:ONBUILD\s+)?(?:COPY|ADD)\s+(.*)$/i.exec(line)?.[1];
    if (rest === undefined) continue;
    const words = wordsOf(rest);
    if (words === undefined) return undefined;
    if (words.some((word) => word.startsWith("--from="))) continue;
    const sources = words.filter((word) => !word.startsWith("--")).slice(0, -1)
      .filter((word) => !/^(https?|git|ssh):/.test(word));
    for (const source of sources) {
      const path = source.replace(/^(\.?\/+)+/, "").replace(/\/+$/, "");
      if (path === "" || path === "." || /[*?[\]$"'\\]|<<|\.\./.test(path)) {
        return undefined;
      }
      paths.push(path);
    }
  }
  return [...new Set(paths)];
}

function wordsOf(text: string): string[] | undefined {
  const list = /^(?:--\S+\s+)*(\[.*\])\s*$/.exec(text)?.[1];
  if (list === undefined) return text.trim().split(/\s+/);
  try {
    const words: unknown = JSON.parse(list);
    const flags = text.slice(0, text.indexOf(list)).trim().split(/\s+/)
      .filter(Boolean);
    return Array.isArray(words) ? [...flags, ...words.map(String)] : undefined;
  } catch {
    return undefined;
  }
}
