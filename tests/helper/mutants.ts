// Mutants of a source: changes that a typing error could make, found in the compiler's
// syntax tree.

import { readFileSync } from "node:fs";
import { type Node, SyntaxKind } from "typescript/unstable/ast";
import * as is from "typescript/unstable/ast/is";

export interface Mutant {
  file: string;
  /** Start and end of the replaced text. */
  start: number;
  end: number;
  after: string;
}

const swapped: Record<string, string> = {
  "===": "!==",
  "!==": "===",
  "<": "<=",
  "<=": "<",
  ">": ">=",
  ">=": ">",
  "&&": "||",
  "||": "&&",
  "+": "-",
  "-": "+",
};

/** The possible replacements of a node. */
export function changesOf(node: Node): Omit<Mutant, "file">[] {
  const change = (part: Node, after: string) => [
    { start: part.getStart(), end: part.getEnd(), after },
  ];
  if (is.isIfStatement(node) || is.isWhileStatement(node)) {
    return change(node.expression, `!(${node.expression.getText()})`);
  }
  if (is.isConditionalExpression(node)) {
    return change(node.condition, `!(${node.condition.getText()})`);
  }
  if (is.isBinaryExpression(node)) {
    const operator = node.operatorToken.getText();
    const other = swapped[operator];
    if (other) return change(node.operatorToken, other);
    return operator === "??" ? change(node, `${node.left.getText()}!`) : [];
  }
  if (node.kind === SyntaxKind.TrueKeyword) return change(node, "false");
  if (node.kind === SyntaxKind.FalseKeyword) return change(node, "true");
  if (node.kind === SyntaxKind.QuestionDotToken) {
    const next = node.getSourceFile().text.slice(node.getEnd());
    return change(node, /^[[(]/.test(next) ? "!" : "!.");
  }
  if (is.isReturnStatement(node) && node.expression) {
    return change(node.expression, "undefined as never");
  }
  if (is.isExpressionStatement(node)) {
    const { expression } = node;
    const called = is.isAwaitExpression(expression)
      ? expression.expression
      : expression;
    return is.isCallExpression(called) ? change(node, ";") : [];
  }
  if (is.isStringLiteral(node) && node.text !== "") {
    const { parent } = node;
    const isName = is.isImportDeclaration(parent) ||
      is.isExportDeclaration(parent) ||
      (is.isPropertyAssignment(parent) && parent.name === node);
    return isName ? [] : change(node, '""');
  }
  return [];
}

export function textOf({ file, start, end, after }: Mutant): string {
  const text = readFileSync(file, "utf8");
  return text.slice(0, start) + after + text.slice(end);
}

/** As "before -> after", with its line. */
export function describe({ file, start, end, after }: Mutant): string {
  const text = readFileSync(file, "utf8");
  const line = text.slice(0, start).split("\n").length;
  const short = (code: string) => code.replace(/\s+/g, " ").slice(0, 100);
  // For an operator, show the whole line.
  const shown = end - start > 3
    ? [text.slice(start, end), after]
    : [text, textOf({ file, start, end, after })]
      .map((whole) => whole.split("\n")[line - 1]?.trim() ?? "");
  return `${file}:${line}: ${shown.map(short).join("  ->  ")}`;
}

/** Numbers below 1, the same for the same seed: mulberry32. */
export function randomFrom(state: number): () => number {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
