/** A terminal's lines as an SVG picture: text that can be selected, searched and read aloud. */
import type {IBufferLine} from '@xterm/headless';

/** A stretch of text that looks the same. */
export interface Span {
  text: string;
  /** CSS colour; undefined: the terminal's own. */
  colour: string | undefined;
  bold: boolean;
  dim: boolean;
}

export type Line = Span[];

/** The sixteen colours, of GitHub's dark theme, whose contrast with the background is at least 4.5:1. */
const palette = [
  ...['#8b949e', '#ff7b72', '#56d364', '#e3b341', '#79c0ff', '#d2a8ff', '#56d4dd', '#e6edf3'],
  ...['#8b949e', '#ffa198', '#7ee787', '#f2cc60', '#a5d6ff', '#e2c5ff', '#76e3ea', '#ffffff'],
];
const background = '#0d1117';
const foreground = '#e6edf3';

/** What a line of the terminal's buffer shows, without the blanks at its end. */
export function cellsOf(line: IBufferLine | undefined, columns: number): Line {
  const spans: Line = [];
  for (let column = 0; line && column < columns; column++) {
    const cell = line.getCell(column);
    if (!cell || cell.getWidth() === 0) continue;
    const look = {
      colour: cell.isFgPalette() ? palette[cell.getFgColor()] : undefined,
      bold: cell.isBold() !== 0,
      dim: cell.isDim() !== 0,
    };
    const text = cell.getChars() || ' ';
    const last = spans.at(-1);
    if (last && last.colour === look.colour && last.bold === look.bold && last.dim === look.dim) last.text += text;
    else spans.push({text, ...look});
  }
  const last = spans.at(-1);
  if (last) last.text = last.text.trimEnd();
  return spans.filter(({text}) => text !== '');
}

const fontSize = 14;
const characterWidth = 8.43;
const lineHeight = 19;
const margin = 16;

export function drawSvg(lines: readonly Line[], columns: number): string {
  const width = Math.ceil(columns * characterWidth + 2 * margin);
  const height = lines.length * lineHeight + 2 * margin;
  const rows = lines.map((line, row) => {
    let column = 0;
    const spans = line.map((span) => {
      const x = (margin + column * characterWidth).toFixed(1);
      column += span.text.length;
      // textLength: the columns stay where they are in whatever font the reader has.
      const length = (span.text.length * characterWidth).toFixed(1);
      return `<tspan x="${x}" textLength="${length}"${attributesOf(span)}>${escaped(span.text)}</tspan>`;
    });
    const y = margin + row * lineHeight + fontSize;
    return spans.length === 0 ? '' : `<text y="${y}">${spans.join('')}</text>\n`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img">
<title>A backup, the list of backups, and a restore, in a terminal</title>
<style>text{font:${fontSize}px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:${foreground};white-space:pre}</style>
<rect width="100%" height="100%" rx="8" fill="${background}"/>
${rows.join('')}</svg>
`;
}

function attributesOf({colour, bold, dim}: Span): string {
  return [
    colour === undefined ? '' : ` fill="${colour}"`,
    bold ? ' font-weight="bold"' : '',
    dim ? ' fill-opacity="0.75"' : '',
  ].join('');
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
