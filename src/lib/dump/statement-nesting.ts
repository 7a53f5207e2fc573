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

  /** @param word an unquoted word of plain SQL */
  word(word: string): void {
    if (this.#words < 4) {
      this.#head += /^(create|function|procedure|or|replace)$/i.test(word) ? word[0]?.toLowerCase() : '-';
      this.#words += 1;
    }
    if (this.#parentheses > 0 || !/^c(or)?[fp]/.test(this.#head)) return;
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
