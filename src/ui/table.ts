import {bold} from './format.ts';

const gap = '  ';
const indent = '  ';

/** The columns of the terminal on stdout; a pipe has room for all, and so has a terminal that says it has none (a container's). */
export function tableWidth(): number {
  return process.stdout.columns || Number.POSITIVE_INFINITY;
}

/**
 * A table of plain columns. When the terminal is too narrow for a row, the last column goes to a line of its own, so that
 * a key can be copied whole; the others are spread over as many lines as they need, texts broken between words.
 */
export function table(head: readonly string[], rows: readonly (readonly string[])[], width: number): string {
  const widths = head.map((title, column) =>
    // Not `Math.max(...)`: a function has no room for hundreds of thousands of arguments.
    rows.reduce((most, row) => Math.max(most, (row[column] ?? title).length), title.length),
  );
  const lines = linesOfColumns(widths, width);
  const show = (row: readonly string[]) =>
    lines
      .flatMap((columns, index) => {
        const start = index === 0 ? '' : indent;
        const [only = 0] = columns;
        if (columns.length === 1) return wrapped(row[only] ?? '', width - start.length).map((part) => start + part);
        return start + columns.map((column) => (row[column] ?? '').padEnd(widths[column] ?? 0)).join(gap);
      })
      .map((line) => line.trimEnd())
      .join('\n');
  return [bold(show(head)), ...rows.map(show)].join('\n');
}

/** Which columns share a line of the screen: all of them, when they fit. */
function linesOfColumns(widths: readonly number[], width: number): number[][] {
  const lengthOf = (columns: readonly number[]) =>
    columns.reduce((sum, column) => sum + (widths[column] ?? 0) + gap.length, -gap.length);
  const all = [...widths.keys()];
  if (lengthOf(all) <= width) return [all];
  const lines: number[][] = [];
  for (const column of all.slice(0, -1)) {
    const line = lines.at(-1);
    const room = lines.length === 1 ? width : width - indent.length;
    if (line && lengthOf([...line, column]) <= room) line.push(column);
    else lines.push([column]);
  }
  return [...lines, all.slice(-1)];
}

/** A text in lines of at most so many characters, as far as its words allow: none is broken. */
function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const line = lines.at(-1);
    if (line !== undefined && line.length + 1 + word.length <= width) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  return lines;
}
