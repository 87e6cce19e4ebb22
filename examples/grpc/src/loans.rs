//! Computes payments and plans, in whole cents.

use crate::framing::{Code, Status};
use crate::messages::{Month, PlanRequest, QuoteRequest, QuoteResponse};

/// Largest amount, in cents.
const MAX_AMOUNT: u64 = 1_000_000_000_000;
/// Largest rate, in basis points a year.
const MAX_RATE: u32 = 10_000;
/// Longest duration of a loan.
const MAX_MONTHS: u32 = 600;
/// Basis points of a year in the interest of a month.
const DIVISOR: u64 = 12 * 10_000;

/// The months of a loan. The last item is an error if the loan is not paid back.
pub struct Months {
    rest: u64,
    rate: u32,
    payment: u64,
    number: u32,
}

impl Iterator for Months {
    type Item = Result<Month, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest == 0 {
            return None;
        }
        let interest = interest(self.rest, self.rate);
        let failure = if self.number == MAX_MONTHS {
            let text = format!("{} cents are left after {MAX_MONTHS} months", self.rest);
            Status::new(Code::OutOfRange, text)
        } else if self.payment <= interest {
            let text = format!("the payment must exceed the interest of {interest} cents a month");
            Status::new(Code::FailedPrecondition, text)
        } else {
            let repayment = self.rest.min(self.payment - interest);
            self.rest -= repayment;
            self.number += 1;
            return Some(Ok(Month {
                number: self.number,
                interest,
                repayment,
                rest: self.rest,
            }));
        };
        self.rest = 0;
        Some(Err(failure))
    }
}

/// Interest of one month, rounded to the nearest cent.
fn interest(amount: u64, rate: u32) -> u64 {
    (amount * u64::from(rate) + DIVISOR / 2) / DIVISOR
}

/// Returns the months of a loan.
pub fn plan(request: PlanRequest) -> Result<Months, Status> {
    valid(request.amount, request.rate)?;
    Ok(Months {
        rest: request.amount,
        rate: request.rate,
        payment: request.payment,
        number: 0,
    })
}

/// Returns the smallest payment that pays the loan back in time, by binary search.
pub fn quote(request: QuoteRequest) -> Result<QuoteResponse, Status> {
    let QuoteRequest {
        amount,
        rate,
        months,
    } = request;
    valid(amount, rate)?;
    if !(1..=MAX_MONTHS).contains(&months) {
        let text = format!("months is {months}: use a number from 1 to {MAX_MONTHS}");
        return Err(Status::new(Code::InvalidArgument, text));
    }
    let total = |payment| total_interest(amount, rate, payment, months);
    // the second one pays everything back in the first month
    let (mut too_small, mut payment) = (0, amount + interest(amount, rate));
    while payment - too_small > 1 {
        let middle = too_small.midpoint(payment);
        match total(middle) {
            Some(_) => payment = middle,
            None => too_small = middle,
        }
    }
    Ok(QuoteResponse {
        payment,
        interest: total(payment).unwrap_or_default(),
    })
}

/// Returns the sum of all interest, if the payment pays the loan back in time.
fn total_interest(amount: u64, rate: u32, payment: u64, months: u32) -> Option<u64> {
    let mut plan = Months {
        rest: amount,
        rate,
        payment,
        number: 0,
    };
    let mut total = 0;
    for month in plan.by_ref().take(months as usize) {
        total += month.ok()?.interest;
    }
    (plan.rest == 0).then_some(total)
}

fn valid(amount: u64, rate: u32) -> Result<(), Status> {
    let text = if !(1..=MAX_AMOUNT).contains(&amount) {
        format!("amount is {amount}: use a number of cents from 1 to {MAX_AMOUNT}")
    } else if rate > MAX_RATE {
        format!("rate is {rate}: use a number of basis points up to {MAX_RATE}")
    } else {
        return Ok(());
    };
    Err(Status::new(Code::InvalidArgument, text))
}
