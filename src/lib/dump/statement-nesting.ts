import {BackupError} from '../errors.ts';

/** A word of those that are counted here, or a longer one that ends so. */
export const endsInCountedWord = /(create|or|replace|function|procedure|begin|case|end)$/i;

/**
 * Whether a semicolon ends a statement: not inside parentheses, nor inside the body of an SQL-standard function
 * (`BEGIN ATOMIC …; END`). Follows psql's rules (psqlscan.l: paren_depth, begin_depth), which don't parse SQL either.
 */
export class StatementNesting {
  #parentheses = 0;
  /** The first letters of the words that a statement begins with, as far as they matter: `cf`, `corf`. */
  #head = '';
  #words = 0;
  #blocks = 0;

  parenthesis(token: '(' | ')'): void {
    if (token === '(') this.#parentheses += 1;
    else if (this.#parentheses > 0) this.#parentheses -= 1;
  }

  /**
   * @param word an unquoted word of plain SQL
   * @throws BackupError DUMP_UNREADABLE for a name that psql would take for the beginning of a function's body
   */
  word(word: string): void {
    if (this.#words < 4) {
      this.#head += /^(create|function|procedure|or|replace)$/i.test(word) ? word[0]?.toLowerCase() : '-';
      this.#words += 1;
    }
    if (this.#parentheses > 0 || !/^c(or)?[fp]/.test(this.#head)) return;
    // pg_dump writes the keyword in capitals, and this name without quotes.
    if (word === 'begin') throw unreadableName(word);
    if (/^begin$/i.test(word) || (this.#blocks > 0 && /^case$/i.test(word))) this.#blocks += 1;
    else if (/^end$/i.test(word) && this.#blocks > 0) this.#blocks -= 1;
  }

  /** Takes a semicolon. */
  endsHere(): boolean {
    if (this.#parentheses > 0 || this.#blocks > 0) return false;
    this.#head = '';
    this.#words = 0;
    return true;
  }
}

function unreadableName(name: string): BackupError {
  return new BackupError('psql cannot read the dump', {
    code: 'DUMP_UNREADABLE',
    kind: 'integrity',
    reason: `something in the definition of a function is named ${name}, which psql takes for the beginning of its body: it would not see where the statement ends`,
    hint: `Rename the function, schema or type that is named ${name}; until then no plain dump of this database can be restored.`,
  });
}
