// Earlier questions, brought back with the arrow keys as in a shell.

export class Recall {
  private questions: readonly string[] = [];
  private at = 0;
  private draft = '';

  /** Oldest first. */
  set(questions: readonly string[]): void {
    this.questions = questions;
    this.at = questions.length;
  }

  /** The question before; `shown` is what stands in the field. */
  earlier(shown: string): string | undefined {
    if (this.at === 0) {
      return undefined;
    }
    if (this.at === this.questions.length) {
      this.draft = shown;
    }
    this.at -= 1;
    return this.questions[this.at];
  }

  /** The question behind, and at the end what was being typed. */
  later(): string | undefined {
    if (this.at >= this.questions.length) {
      return undefined;
    }
    this.at += 1;
    return this.at === this.questions.length ? this.draft : this.questions[this.at];
  }

  /** Typing begins something new. */
  reset(): void {
    this.at = this.questions.length;
  }
}
