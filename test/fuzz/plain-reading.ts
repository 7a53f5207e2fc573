/**
 * Another reading of a dump, to compare the scanner's with: of the whole text at once, one regular expression a token, as
 * psqlscan.l has them. Slow and simple.
 */
import {createHash} from 'node:crypto';

export interface Reading {
  tables: {table: string; columns: string; rows: number; bytes: number; sha256: string}[];
  schema: {bytes: number; sha256: string};
  isComplete: boolean;
  versions: {server: string | undefined; pgDump: string | undefined};
  commands: string[];
}

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');

const name = String.raw`(?:"(?:[^"]|"")+"|[^\s"().,;]+)`;
const copy = new RegExp(
  String.raw`COPY (${name}(?:\.${name})?) (?:\((${name}(?:, ${name})*)\))? ?FROM stdin;\n(?:([^]*?\n)??)(\\\.\r?\n)`,
  'y',
);
const copyHead = new RegExp(String.raw`COPY ${name}(?:\.${name})? (?:\(${name}(?:, ${name})*\))? ?FROM stdin;\n`, 'y');
/** What is a line of its own where a statement may begin, and does not count as SQL of the schema: `what` says as what. */
const lines = {
  restrict: /\\(?:un)?restrict [A-Za-z0-9]+\n/y,
  command: /\\[^\n]*(?:\n|$)/y,
  version: /-- Dumped (?:(from database|by pg_dump) version (\S+))?[^\n\r]*(?:\n|$)/y,
};
const complete = /-- PostgreSQL database dump complete[^\n\r]*(?:\n|$)/y;

const dollarTag = String.raw`\$(?:[A-Za-z_\x80-\uffff][\w\x80-\uffff]*)?\$`;
const tokens = {
  ambiguous: new RegExp(String.raw`[0-9$][\w$\x80-\uffff]*?(?:'|${dollarTag})|\0`, 'y'),
  longTag: /\$[A-Za-z_\x80-\uffff][\w\x80-\uffff]{1000}/y,
  /** Neither a quote nor a parameter. */
  loneDollar: /\$(?![0-9])/y,
  numberWithKeyword:
    /[0-9][\w$\x80-\uffff]*(?:create|or|replace|function|procedure|begin|case|end)(?![\w$\x80-\uffff])/iy,
  lineComment: /--[^\n\r]*/y,
  string: /[bnx]?'[^']*'/iy,
  escapeString: /[eE]'(?:[^'\\]|\\.|'')*'(?!')/sy,
  quotedName: /"[^"]*"/y,
  dollar: new RegExp(String.raw`(${dollarTag})[^]*?\1`, 'y'),
  /** Of what has no end. */
  quoteBegun: new RegExp(`[ebnxEBNX]?'|"|${dollarTag}`, 'y'),
  word: /[A-Za-z_\x80-\uffff][\w$\x80-\uffff]*|[0-9][\w\x80-\uffff]*/y,
  command: /\\.{0,79}/y,
  breaks: /\n/y,
  space: /[^\S\n]/y,
  character: /./sy,
} satisfies Record<string, RegExp>;

/** Of a text that is not cut off and not ambiguous; undefined if it is. */
export function readPlainly(text: string): Reading | undefined {
  const reading: Omit<Reading, 'schema'> = {
    tables: [],
    isComplete: false,
    versions: {server: undefined, pgDump: undefined},
    commands: [],
  };
  let schema = '';
  let at = 0;
  const nesting = {parentheses: 0, blocks: 0, head: [] as string[]};
  let mayBegin = true;
  let isLineStart = true;

  const take = (pattern: RegExp) => {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match) at = pattern.lastIndex;
    return match ?? undefined;
  };
  const takeWholeLine = (): boolean | undefined => {
    const table = take(copy);
    if (table) {
      const [all, qualified = '', columns = '', rows = ''] = table;
      schema += all.replace(/FROM stdin;\n.*$/s, 'FROM stdin;\n');
      const bytes = Buffer.byteLength(rows);
      reading.tables.push({table: qualified, columns, rows: rows.split('\n').length - 1, bytes, sha256: sha256(rows)});
      schema += table[4];
      return true;
    }
    if (take(copyHead)) return undefined;
    if (take(lines.restrict)) return true;
    const command = take(lines.command);
    if (command) {
      reading.commands.push(command[0].trim().slice(0, 80));
      return true;
    }
    const version = take(lines.version);
    if (version) {
      if (version[1]) reading.versions[version[1] === 'by pg_dump' ? 'pgDump' : 'server'] = version[2];
      return true;
    }
    const end = take(complete);
    if (!end) return false;
    schema += end[0];
    reading.isComplete = true;
    return true;
  };
  const countWord = (written: string): 'unreadable' | undefined => {
    const word = written.toLowerCase();
    const {head} = nesting;
    if (head.length < 4) head.push(word);
    const isRoutine = /^create (or replace )?(function|procedure)\b/.test(head.join(' '));
    if (!isRoutine || nesting.parentheses > 0) return undefined;
    if (written === 'begin') return 'unreadable';
    if (word === 'begin' || (word === 'case' && nesting.blocks > 0)) nesting.blocks += 1;
    else if (word === 'end' && nesting.blocks > 0) nesting.blocks -= 1;
    return undefined;
  };

  while (at < text.length) {
    if (mayBegin && isLineStart) {
      const isLine = takeWholeLine();
      if (isLine === undefined) return undefined;
      if (isLine) continue;
    }
    const start = at;
    // Before a quote, which a tag that is too long would begin.
    if (take(tokens.longTag)) return undefined;
    if (take(tokens.escapeString) || take(tokens.string) || take(tokens.quotedName) || take(tokens.dollar)) {
      mayBegin = false;
      isLineStart = false;
    } else if (
      take(tokens.quoteBegun) ||
      take(tokens.ambiguous) ||
      take(tokens.loneDollar) ||
      take(tokens.numberWithKeyword)
    )
      return undefined;
    else if (take(tokens.lineComment)) {
      // Says nothing about where a statement begins.
    } else if (text.startsWith('/*', at)) {
      const end = endOfBlockComment(text, at);
      if (end === undefined) return undefined;
      at = end;
    } else if (take(tokens.breaks)) isLineStart = true;
    else if (take(tokens.space)) isLineStart = false;
    else {
      isLineStart = false;
      const command = take(tokens.command);
      if (command) {
        reading.commands.push(Buffer.from(command[0]).subarray(0, 80).toString().trim());
        at = start + 1;
        mayBegin = false;
      } else {
        const word = take(tokens.word)?.[0];
        const character = word ?? take(tokens.character)?.[0];
        if (word && countWord(word) === 'unreadable') return undefined;
        if (character === '(') nesting.parentheses += 1;
        if (character === ')') nesting.parentheses = Math.max(0, nesting.parentheses - 1);
        mayBegin = character === ';' && nesting.parentheses === 0 && nesting.blocks === 0;
        if (mayBegin) nesting.head = [];
      }
    }
    schema += text.slice(start, at);
  }
  return {...reading, schema: {bytes: Buffer.byteLength(schema), sha256: sha256(schema)}};
}

function endOfBlockComment(text: string, start: number): number | undefined {
  const mark = /\/\*|\*\//g;
  mark.lastIndex = start;
  let depth = 0;
  for (let match = mark.exec(text); match; match = mark.exec(text)) {
    depth += match[0] === '/*' ? 1 : -1;
    if (depth === 0) return mark.lastIndex;
  }
  return undefined;
}
