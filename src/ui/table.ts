import {bold} from './format.ts';

/**
 * A table of plain columns. When the terminal is too narrow for a row, the last column goes to a line of its own, so that
 * a key can be copied whole.
 */
export function table(head: readonly string[], rows: readonly (readonly string[])[], width: number): string {
  const widths = head.map((title, column) => Math.max(...[head, ...rows].map((row) => (row[column] ?? title).length)));
  const isNarrow = widths.reduce((sum, columnWidth) => sum + columnWidth + 2, -2) > width;
  const line = (row: readonly string[]) => {
    const cells = row.map((cell, column) => cell.padEnd(widths[column] ?? 0));
    if (!isNarrow) return cells.join('  ').trimEnd();
    return `${cells.slice(0, -1).join('  ').trimEnd()}\n  ${row.at(-1)}`;
  };
  return [bold(line(head)), ...rows.map(line)].join('\n');
}
